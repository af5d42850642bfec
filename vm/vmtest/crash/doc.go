// Package crash has the tests that kill the daemon at random moments or at each step, or inject
// disk errors. They check that every accepted machine still exists and that
// nothing is left of a destroyed one.
package crash
