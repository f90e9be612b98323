package postgres

import (
	"tallyhook/internal/store/row"
)

// lightColumns leave the payload out, which may have megabytes: for lists and
// for the processor, which never looks at it.
const lightColumns = row.EventHead + `''::bytea` + row.EventTail
