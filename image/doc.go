// Package image keeps gold images: it downloads an archive, proves its
// checksum, unpacks it and keeps the files read-only for as long as somebody
// wants to clone them.
//
// An image's way, which Cache.Ensure walks once however many ask:
//
//	HTTP ──▶ <type>-<sum>.part ──▶ decompress ──▶ tar ──▶ .staging-*/ ─┐
//	  └────▶ hash                                                     │
//	            └──▶ the sum is right? ──▶ Options.Prepare, Options.Check ──▶ rename ──┴──▶ gold/<type>-<sum>/
//
// Download, hash, decompression and unpacking overlap: the unpacker follows
// the .part file while it grows. A .part outlives a broken connection and the
// process, and is resumed. A folder below gold/ is whole, proven and checked,
// because one rename put it there.
//
// Archives are hostile until proven otherwise, and a matching checksum proves
// only that the sender meant what it sent. Files are written inside an
// os.Root; only regular files and folders with plain names pass, within the
// Limits.
//
// The package knows neither machines nor HTTP handlers. One process at a time
// may have a folder open; its owner sees to that.
package image
