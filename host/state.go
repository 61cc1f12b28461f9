package host

import "fmt"

// State is where a service is in its life.
//
//	          +----------- Failed <---------+
//	          v                             |
//	Created -> Starting -> Awake <-> Sleeping -> Asleep
//	             ^           ^                     |
//	             |           +------ Waking <------+
//	          Exited <- Stopping <- (any live state)
//
// Sleeping falls back to Awake when the service can not sleep; Waking falls
// back to Asleep when a wake fails and can be tried again, and to Starting
// when its checkpoint is not usable and it must start cold.
type State string

// The states of a service.
const (
	Created  State = "created"  // known, nothing of it exists
	Starting State = "starting" // container being made, application started, not yet ready
	Awake    State = "awake"
	Sleeping State = "sleeping" // being dumped
	Asleep   State = "asleep"   // no process of it exists, its connections stay open
	Waking   State = "waking"
	Stopping State = "stopping"
	Exited   State = "exited" // stopped, or ended by itself
	Failed   State = "failed" // could not be started; the reason says why
)

var transitions = map[State][]State{
	Created:  {Starting, Failed, Exited},
	Starting: {Awake, Stopping, Exited, Failed},
	Awake:    {Sleeping, Stopping, Exited},
	Sleeping: {Asleep, Awake, Exited},
	Asleep:   {Waking, Stopping, Exited},
	Waking:   {Awake, Asleep, Starting, Exited},
	Stopping: {Exited, Failed},
	Exited:   {Starting, Failed},
	Failed:   {Starting, Exited},
}

// Next returns to if a service may go there from s, and an error that names
// both otherwise. It is the only rule of transitions.
func (s State) Next(to State) (State, error) {
	for _, allowed := range transitions[s] {
		if allowed == to {
			return to, nil
		}
	}
	return s, fmt.Errorf("change state %s to %s: not a transition", s, to)
}

// Live reports whether processes or a checkpoint of the service exist.
func (s State) Live() bool {
	switch s {
	case Starting, Awake, Sleeping, Asleep, Waking, Stopping:
		return true
	}
	return false
}
