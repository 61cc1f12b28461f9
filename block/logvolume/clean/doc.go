// Package clean is the policy of a log's cleaner: which stream a block goes to,
// when cleaning is due, how fast, and which segment is next. It does no I/O and
// reads no clock.
//
// # Time
//
// Time is counted in blocks that users wrote. Only differences count, so it may
// be wrong by a little after a crash. What is moved by the cleaner does not make
// it go on.
//
// # Rules
//
// There are three streams of data. A block that a user writes goes to Hot if
// what it overwrites was written no longer ago than half the time in which users
// write as many blocks as are useful now; else to Warm. The time at which it was
// written is the mean of its segment's blocks, Segment.Written, which moves with
// them. The cleaner moves blocks one stream on: from Hot to Warm, from Warm to
// Cold, from Cold to Cold. All blocks of a victim go to the same stream.
//
// The victim is the segment with the most dead * age / live, where age is the
// time since it was sealed. When users have to wait it is the one with the least
// live blocks.
//
// # Why
//
// Say blocks of one kind are overwritten at a rate r each, and their segments
// are cleaned when a part E of them is dead. They take a room C proportional to
// L/E with L = -ln(1-E), and cost 1/E writes for each. Room is spread best over
// kinds if another segment of room saves as much in each, so if
//
//	(E/(1-E) - L) / r
//
// is the same for all: that of the victim is the greatest. A segment shows its
// own rate: L = r * age. That makes age * (E/(1-E)/L - 1), which is from 0.49
// (E = 0.1) to 0.32 (E = 0.9) of age * E/(1-E), that is dead * age / live, which
// needs no logarithm and costs as much in simulations.
// The age must be that since sealing. With that of the data, as is usual for
// cost and benefit, segments of uniform data are chosen for being old.
//
// The border of half the live blocks parts what is overwritten at least twice as
// often as the mean from the rest. Any from 1/8 to 1 does nearly as well.
//
// # What the log uses
//
// For, Demote and Choose. It sends all that users write to Hot, since two rows for
// one batch of changes would need a mark in the format, and cleans without a pace;
// Route, First and Pace are used by the simulation only. By that, 90/10 costs 61,
// 53 and 62 % of one unsorted stream at 70, 80 and 90 %, instead of 59, 52 and 53.
//
// docs/cleaning.md has the figures, and what else was tried.
package clean
