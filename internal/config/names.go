package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"tallyhook/internal/fault"
)

// checkNames finds names that nothing will read. Names are visited in order,
// so that the same environment always gives the same line.
func (c *Config) checkNames(settings []Setting, env map[string]string) error {
	// The verbs that speak to a running server read this one; an operator's
	// shell may have it while it starts a server.
	known := []string{Prefix + "URL"}
	for _, s := range settings {
		known = append(known, Prefix+s.Name)
		if s.Secret {
			known = append(known, Prefix+s.Name+"_FILE")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		bare := strings.TrimPrefix(name, Prefix)
		switch {
		case bare == "REDIS_PORT" && addressOfService(env[name]), name == Prefix+"PORT" && addressOfService(env[name]):
			c.Warnings = append(c.Warnings, name+" is the address of a Kubernetes service, not a setting; it is ignored")
		case slices.Contains(known, name):
		case bare == name, serviceVariable(name):
			// Someone else's.
		default:
			return fault.New(fault.Invalid, "%s is set, but there is no such setting; docs/configuration.md lists them all", name)
		}
	}
	return nil
}

// addressOfService tells whether a value is what Kubernetes injects as
// TALLYHOOK_PORT when a service is called tallyhook, and as REDIS_PORT when
// one is called redis.
func addressOfService(value string) bool {
	scheme, _, ok := strings.Cut(value, "://")
	return ok && (scheme == "tcp" || scheme == "udp" || scheme == "sctp")
}

// serviceVariable tells whether a name is one of those that Kubernetes injects
// for a service called tallyhook or tallyhook-something.
func serviceVariable(name string) bool {
	ok, err := regexp.MatchString(
		`^TALLYHOOK_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`, name)
	return err == nil && ok
}
