package testenv

import (
	"fmt"
	"os"
)

var dbgN int

func (s *Server) Dump() { dbgN++; os.WriteFile(fmt.Sprintf("/tmp/ov/log%d", dbgN), []byte(s.Log()), 0o644) }
