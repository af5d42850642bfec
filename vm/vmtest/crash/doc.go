// Package crash has the tests that kill the daemon at random moments, or make
// its disk fail, and check that nothing accepted is lost and nothing destroyed
// is left.
package crash
