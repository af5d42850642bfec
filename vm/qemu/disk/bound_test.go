package disk

import "testing"

// The data of a disk bounds the time of its conversion, not the size that it claims.
func TestConvertBound(t *testing.T) {
	for _, tt := range []struct{ allocated, size, want int64 }{
		{1, 1 << 20, 95},
		{1 << 30, 1 << 30, 95},
		{1<<30 + 1, 64 << 30, 134},
		{1 << 16, 2 << 40, 223},
	} {
		if got := convertBound(tt.allocated, tt.size); got != tt.want {
			t.Errorf("%d of %d bytes: got %d s, want %d", tt.allocated, tt.size, got, tt.want)
		}
	}
}
