// Package compose turns a compose file into a host.ProjectSpec and back.
//
// Reading is compose-go's: interpolation, .env, profiles, extends, include,
// anchors and the merging of several files. What is added here is strictness.
// Every key is looked up in keys.txt, and one that Torpor does not act on is
// a Problem with its file and line; all of them are returned together as
// Problems, and nothing is dropped without a word.
//
// The nouns: a *document* is one YAML file as nodes with positions, a
// *fragment* is one place that adds to a service (a file, an override, a
// service extended), an *origin* is all of them and answers where a path came
// from. A *rule* is what keys.txt says of a path.
//
// Load and Marshal share no state and may be called from several goroutines.
// The first Load silences logrus for the process: compose-go writes warnings
// to its global logger, and nothing else in Torpor uses it. Those that matter
// are handed to LoadOptions.Warn.
//
// The files are trusted like any configuration read by root: they name paths,
// environment files and includes, and all of them are opened. Arbitrary bytes
// give an error, never a panic. The package does not look whether bind
// sources, secret files, images or devices exist; whoever makes the container
// does.
package compose
