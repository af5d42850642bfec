package vmx

import (
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// codePages are the encodings that have a number in the names of ICU, which VMware
// uses: "windows-949-2000", "ibm-1252_P100-2000", "ibm-5348_P100-1997".
var codePages = map[string]encoding.Encoding{
	"936": simplifiedchinese.GBK, "1386": simplifiedchinese.GBK, "5488": simplifiedchinese.GB18030, "1392": simplifiedchinese.GB18030,
	"54936": simplifiedchinese.GB18030, "950": traditionalchinese.Big5, "1373": traditionalchinese.Big5,
	"932": japanese.ShiftJIS, "943": japanese.ShiftJIS, "33722": japanese.EUCJP, "51932": japanese.EUCJP,
	"949": korean.EUCKR, "970": korean.EUCKR, "1363": korean.EUCKR, "51949": korean.EUCKR,
	"437": charmap.CodePage437, "850": charmap.CodePage850, "852": charmap.CodePage852, "855": charmap.CodePage855, "858": charmap.CodePage858,
	"860": charmap.CodePage860, "862": charmap.CodePage862, "863": charmap.CodePage863, "865": charmap.CodePage865, "866": charmap.CodePage866,
	"874": charmap.Windows874, "1250": charmap.Windows1250, "5346": charmap.Windows1250, "1251": charmap.Windows1251, "5347": charmap.Windows1251,
	"1252": charmap.Windows1252, "5348": charmap.Windows1252, "1253": charmap.Windows1253, "5349": charmap.Windows1253,
	"1254": charmap.Windows1254, "5350": charmap.Windows1254, "1255": charmap.Windows1255, "9447": charmap.Windows1255,
	"1256": charmap.Windows1256, "9448": charmap.Windows1256, "1257": charmap.Windows1257, "9449": charmap.Windows1257,
	"1258": charmap.Windows1258, "5354": charmap.Windows1258, "28591": charmap.ISO8859_1, "28605": charmap.ISO8859_15,
}

var codePageName = regexp.MustCompile(`^(?:windows|ibm|cp|ms|x-windows)[-_]?([0-9]+)(?:[-_].*)?$`)

// guesses are the encodings in which an archive may have names, the likeliest first.
var guesses = []encoding.Encoding{
	simplifiedchinese.GBK, traditionalchinese.Big5, japanese.ShiftJIS, korean.EUCKR, charmap.CodePage850, charmap.CodePage437,
	charmap.Windows1252, charmap.CodePage852, charmap.Windows1250, charmap.CodePage866, charmap.Windows1251,
}

// findEncoding returns an encoding by the name that VMware has for it. It is nil for UTF-8.
func findEncoding(name string) (e encoding.Encoding, known bool) {
	name = lower(strings.Trim(name, " \t"))
	if name == "utf-8" || name == "utf8" {
		return nil, true
	}
	if m := codePageName.FindStringSubmatch(name); m != nil && codePages[m[1]] != nil {
		return codePages[m[1]], true
	}
	if e, err := htmlindex.Get(name); err == nil {
		return e, true
	}
	if e, err := ianaindex.IANA.Encoding(name); err == nil && e != nil {
		return e, true
	}
	return nil, false
}

// decodeText returns a text file in UTF-8. The line with the key names its encoding;
// without it, the file is in UTF-8, or otherwise in windows-1252.
func decodeText(data []byte, declared string) (text []byte, from encoding.Encoding, err error) {
	e, known := findEncoding(declared)
	switch {
	case isASCII(data):
		return data, nil, nil
	case declared == "" && utf8.Valid(data):
		return data, nil, nil
	case declared == "":
		e = charmap.Windows1252
	case !known && utf8.Valid(data):
		return data, nil, nil
	case !known:
		return nil, nil, &CheckError{Key: "encoding", Value: declared, Reason: `the file is in an encoding that is not known here; save it as UTF-8, with the encoding "UTF-8"`}
	case e == nil:
		return data, nil, nil
	}
	if text, err = e.NewDecoder().Bytes(data); err != nil || bytes.ContainsRune(text, utf8.RuneError) {
		return nil, nil, &CheckError{Key: "encoding", Value: declared, Reason: "the file is not in the encoding that it names; save it as UTF-8, with the encoding \"UTF-8\""}
	}
	return text, e, nil
}

func isASCII(data []byte) bool {
	for _, b := range data {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
