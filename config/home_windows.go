package config

const (
	// homeVariable names the user's home folder.
	homeVariable = "USERPROFILE"

	// defaultData is in the part of the home folder that Windows does not copy to other hosts.
	defaultData = "~/AppData/Local/osx-builder"
)
