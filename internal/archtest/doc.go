// Package archtest holds the tests of what ARCHITECTURE.md promises: who may
// import whom, and that the documents name only what is there. It has no code
// of its own. The imports are parsed in this process: a test that shells out
// to the go command is cached and stays green.
package archtest
