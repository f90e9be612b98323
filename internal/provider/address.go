package provider

import (
	"net/mail"
	"strings"

	"tallyhook/internal/event"
)

// bareAddress takes the name off an address as it stands in a mail's header:
// "Ada <ada@example.com>". Anything else stays as it was sent.
func bareAddress(s string) string {
	s = strings.TrimSpace(s)
	if !strings.HasSuffix(s, ">") {
		return s
	}
	if a, err := mail.ParseAddress(s); err == nil {
		return a.Address
	}
	if i := strings.LastIndexByte(s, '<'); i >= 0 { // a name that RFC 5322 would have in quotes
		return strings.TrimSpace(s[i+1 : len(s)-1])
	}
	return s
}

// soleAddress is the one address of a header's value; "" when there are
// several, since then nothing says which one an event is about.
func soleAddress(s string) string {
	list, err := mail.ParseAddressList(s)
	switch {
	case err == nil && len(list) == 1:
		return list[0].Address
	case err == nil:
		return ""
	}
	if s = bareAddress(s); event.ValidAddress(s) {
		return s
	}
	return ""
}

// soleOf is the one element of a list of addresses; "" when there are several
// or none.
func soleOf(list []string) string {
	if len(list) != 1 {
		return ""
	}
	return soleAddress(list[0])
}
