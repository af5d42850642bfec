// Package windows tests the program for Windows. Its tests for Windows itself run there or under wine; the others start
// the program under wine, on Linux, with the build tag wine.
package windows
