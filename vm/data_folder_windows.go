package vm

import (
	"fmt"
	"log/slog"
	"slices"
	"unsafe"

	"golang.org/x/sys/windows"
)

// holderSuffix is added to the name of the lock for the file that says who holds it: nobody else can read a locked file.
const holderSuffix = ".txt"

// makePrivate gives an existing folder an access control list with its user, SYSTEM and Administrators only. What is in
// the folder inherits it. A folder that contains other things than a daemon's keeps its list: others may need it.
func makePrivate(path string, log *slog.Logger) error {
	user, err := currentUser()
	if err != nil {
		return err
	}
	if private, err := isPrivate(path, user); private || err != nil {
		return err
	}
	other, err := hasOther(path)
	if err != nil {
		return err
	}
	if other != "" {
		log.Warn("the data folder is open to other users; it keeps its access control list because it contains other files: choose another folder with -data, or take their access away with icacls",
			"data", path, "file", other)
		return nil
	}
	if err := setPrivate(path, user); err != nil {
		log.Warn("the data folder stays open to other users", "data", path, "err", err)
		return nil
	}
	log.Info("the data folder was open to other users; only its user, SYSTEM and Administrators have access now", "data", path)
	return nil
}

func currentUser() (string, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", fmt.Errorf("asking for the user of this process: %w", err)
	}
	return user.User.Sid.String(), nil
}

const (
	systemSID         = "S-1-5-18"
	administratorsSID = "S-1-5-32-544"
	creatorOwnerSID   = "S-1-3-0"
)

// isPrivate reports whether nobody but the user, SYSTEM and Administrators has access to the folder.
func isPrivate(path, user string) (bool, error) {
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return false, fmt.Errorf("reading the access control list of %s: %w", path, err)
	}
	acl, _, err := sd.DACL()
	if err != nil || acl == nil {
		return false, nil // without a list, everybody has access
	}
	for i := range acl.AceCount {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(acl, uint32(i), &ace); err != nil {
			return false, fmt.Errorf("reading the access control list of %s: %w", path, err)
		}
		sid := (*windows.SID)(unsafe.Pointer(&ace.SidStart)).String()
		if ace.Header.AceType == windows.ACCESS_ALLOWED_ACE_TYPE &&
			!slices.Contains([]string{user, systemSID, administratorsSID, creatorOwnerSID}, sid) {
			return false, nil
		}
	}
	return true, nil
}

// setPrivate replaces the folder's access control list, and inherits none from the folder above.
func setPrivate(path, user string) error {
	sddl := "D:P"
	for _, sid := range []string{user, systemSID, administratorsSID} {
		sddl += "(A;OICI;FA;;;" + sid + ")"
	}
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return err
	}
	acl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, acl, nil)
}
