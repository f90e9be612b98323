package campaign_test

import (
	"strings"
	"testing"

	"tallyhook/internal/campaign"
)

func TestVariantOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ metadata, want string }{
		"None":           {``, ""},
		"NotThere":       {`{"a":1}`, ""},
		"There":          {`{"a":{"variant":"no"},"variant":"B"}`, "B"},
		"NestedOnly":     {`{"a":{"variant":"no"}}`, ""},
		"InAValue":       {`{"a":"variant"}`, ""},
		"Escaped":        {`{"variant":"\u0042"}`, "B"},
		"NotAString":     {`{"variant":7}`, ""},
		"AsLongAsItMay":  {`{"variant":"` + strings.Repeat("x", 64) + `"}`, strings.Repeat("x", 64)},
		"TooLong":        {`{"variant":"` + strings.Repeat("x", 65) + `"}`, ""},
		"NotAnObject":    {`["variant"]`, ""},
		"NotJSON":        {`{"variant"`, ""},
		"NotJSONOutside": {`"variant"`, ""},
	} {
		if got := campaign.VariantOf([]byte(c.metadata)); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
