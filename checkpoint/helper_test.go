package checkpoint

// helperArg makes the test binary a helper process instead of a test.
const helperArg = "checkpoint-helper"

func helper(args []string) int { return 2 }
