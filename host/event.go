package host

import "time"

// EventType says what happened; the words are listed in TERMS.md.
type EventType string

// The events of a service. Reason explains those that need it: why a service
// stays awake, what woke it, why it started cold.
const (
	EventCreate     EventType = "create"
	EventStart      EventType = "start"
	EventReady      EventType = "ready"      // listening or healthy
	EventCheckpoint EventType = "checkpoint" // its ready checkpoint was made
	EventSleep      EventType = "sleep"
	EventSuspend    EventType = "suspend" // the connections of a sleeping service are kept without sockets
	EventWake       EventType = "wake"
	EventRefuse     EventType = "refuse" // can not sleep; unharmed
	EventCold       EventType = "cold"   // its checkpoint could not be used; started from nothing
	EventHealth     EventType = "health"
	EventExit       EventType = "exit"
	EventRestart    EventType = "restart"
	EventStop       EventType = "stop"
	EventRemove     EventType = "remove"
	EventPull       EventType = "pull"
	EventError      EventType = "error"
)

// The events of volumes.
const (
	EventVolume   EventType = "volume"   // a volume or its server is not as it should be, or is again
	EventDiskOut  EventType = "disk_out" // a disk is not used any more
	EventDegraded EventType = "degraded" // a log has lost redundancy
	EventRebuilt  EventType = "rebuilt"  // and has it again
	EventScrub    EventType = "scrub"    // a scrub has ended
)

// Event is one thing that happened, as printed by torpor events --json.
type Event struct {
	Time      time.Time         `json:"time"`
	Type      EventType         `json:"type"`
	Project   ProjectName       `json:"project,omitempty"`
	Service   ServiceName       `json:"service,omitempty"`
	Container ContainerID       `json:"container,omitempty"`
	Volume    string            `json:"volume,omitempty"`
	Reason    string            `json:"reason,omitempty"`
	Attrs     map[string]string `json:"attrs,omitempty"` // figures with their unit in the key
}
