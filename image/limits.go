package image

import "time"

// Limits bound what an image may cost. A field left zero has the default that
// its comment names. What is over one of them has an error of its own.
type Limits struct {
	DownloadBytes int64 // size of the archive; 64 GiB
	UnpackedBytes int64 // size of all files together, holes included; 256 GiB
	Entries       int   // files and folders in the archive; 10 000
	PathDepth     int   // elements of a path; 16
	PathLength    int   // bytes of a path; 1024

	// Ratio is how many bytes may be written for each byte of the archive.
	// Runs of zeroes cost no disk and do not count: an empty disk of 40 GB is
	// honest. 200
	Ratio int

	Stall     time.Duration // how long a server may send nothing before it is asked again; 60 s
	MinRate   int64         // bytes a second that a server must send on average over Stall; 1 KiB. Negative means none.
	Idle      time.Duration // how long a download may bring no byte, over all its tries and pauses; 5 min
	Tries     int           // requests in a row that bring no byte; 6
	RetryWait time.Duration // before the second try, doubled up to 32 times that; 1 s

	// FreeBytes is the disk space that is left to the host; 1 GiB. Negative
	// means none.
	FreeBytes int64
}

// ratioFloor is how much may be written before Ratio counts, so that a few
// small and very regular files are no bomb.
const ratioFloor = 16 << 20

func (l Limits) withDefaults() Limits {
	return Limits{
		DownloadBytes: or(l.DownloadBytes, 64<<30),
		UnpackedBytes: or(l.UnpackedBytes, 256<<30),
		Entries:       or(l.Entries, 10_000),
		PathDepth:     or(l.PathDepth, 16),
		PathLength:    or(l.PathLength, 1024),
		Ratio:         or(l.Ratio, 200),
		Stall:         or(l.Stall, time.Minute),
		MinRate:       max(0, or(l.MinRate, 1<<10)),
		Idle:          or(l.Idle, 5*time.Minute),
		Tries:         or(l.Tries, 6),
		RetryWait:     or(l.RetryWait, time.Second),
		FreeBytes:     max(0, or(l.FreeBytes, 1<<30)),
	}
}

func or[T ~int | ~int64](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}
