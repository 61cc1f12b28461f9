package volume

import (
	"testing"

	"torpor/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }
