package host

import (
	"encoding/json"
	"testing"
)

func TestLayout(t *testing.T) {
	for text, want := range map[string]Layout{"1+0": {1, 0}, "4+2": {4, 2}, "1+2": {1, 2}, "30+2": {30, 2}} {
		got, err := ParseLayout(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "4", "+2", "4+", "0+2", "4+-1", "4+2+1", "31+2", "99999999999999999999+1", "4 + 2"} {
		if got, err := ParseLayout(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	b, err := json.Marshal(TorporVolume{Layout: Layout{4, 2}})
	var back TorporVolume
	if err != nil || json.Unmarshal(b, &back) != nil || back.Layout != (Layout{4, 2}) {
		t.Errorf("%s, %v is read as %v", b, err, back.Layout)
	}
}
