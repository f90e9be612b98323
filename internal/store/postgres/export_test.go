package postgres

import "context"

// CrashBeforeLook lets every writer of the store end, from now on, between its
// commit and its second look.
func (s *Store) CrashBeforeLook() { s.second = func(context.Context, *tx) {} }
