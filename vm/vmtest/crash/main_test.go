package crash_test

import (
	"testing"

	"osx-builder/vm/vmtest/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
