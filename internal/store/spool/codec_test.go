package spool_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tallyhook/internal/event"
	"tallyhook/internal/store"
	"tallyhook/internal/store/spool"
)

// fill gives every field of a struct a value of its own, but those left out. A
// type that it does not know fails the test: the encoding will not know it either.
func fill(t testing.TB, p any, leave ...string) {
	t.Helper()
	v := reflect.ValueOf(p).Elem()
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if slices.Contains(leave, name) {
			continue
		}
		n := i + 1
		switch f.Interface().(type) {
		case time.Time:
			f.Set(reflect.ValueOf(time.Date(2026, 11, n, 3, 4, 5, 678_901_234, time.UTC)))
			continue
		case []byte:
			f.SetBytes([]byte{byte(n), 0, 0xff, '\'', '\n'})
			continue
		case []string:
			f.Set(reflect.ValueOf([]string{"", "part\x00" + name, "\xff"}))
			continue
		case map[string]string:
			f.Set(reflect.ValueOf(map[string]string{"a": "", "": name, "\xff": "b"}))
			continue
		case event.Nonce:
			f.Set(reflect.ValueOf(event.Nonce{Key: event.HashOf(name, "key"), Digest: event.HashOf(name, "digest")}))
			continue
		}
		switch f.Kind() {
		case reflect.String:
			f.SetString(name + " \x00 \xff ü")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int8:
			f.SetInt(-128)
		case reflect.Int, reflect.Int64:
			f.SetInt(-1 << 63)
		case reflect.Array:
			for j := range f.Len() {
				f.Index(j).SetUint(uint64(n + j))
			}
		default:
			t.Fatalf("the field %s is of type %s, which this test cannot fill", name, f.Type())
		}
	}
}

// TestEveryFieldSurvives fails for a new field of event.Event that the
// encoding does not have.
func TestEveryFieldSurvives(t *testing.T) {
	t.Parallel()
	var e event.Event
	fill(t, &e)
	got, err := spool.Decode(spool.EncodeEvent(e))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(store.Spooled{Event: e}, got); d != "" {
		t.Error(d)
	}
	v := reflect.ValueOf(e)
	for i := range v.NumField() { // each alone: no field hides in another
		var one event.Event
		reflect.ValueOf(&one).Elem().Field(i).Set(v.Field(i))
		got, err := spool.Decode(spool.EncodeEvent(one))
		if d := cmp.Diff(store.Spooled{Event: one}, got); err != nil || d != "" {
			t.Errorf("%s alone: %v %s", v.Type().Field(i).Name, err, d)
		}
	}
}

// TestEveryFieldOfABodySurvives leaves out what only the store sets.
func TestEveryFieldOfABodySurvives(t *testing.T) {
	t.Parallel()
	var l store.Letter
	fill(t, &l, "Seq", "Status", "Attempts", "LastAttemptAt", "Event")
	got, err := spool.Decode(spool.EncodeBody(l))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(store.Spooled{Body: &l}, got); d != "" {
		t.Error(d)
	}
}

func TestEmptyAndAbsentDiffer(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]event.Event{
		"Zero":         {},
		"EmptyPayload": {Payload: []byte{}},
		"EmptyParts":   {IdentityParts: []string{}, Metadata: []byte{}},
		"LongAgo":      {OccurredAt: time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)},
		"FarAhead":     {OccurredAt: time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)},
	} {
		got, err := spool.Decode(spool.EncodeEvent(e))
		if err != nil || !reflect.DeepEqual(got.Event, e) {
			t.Errorf("%s: got %#v, %v", name, got.Event, err)
		}
	}
}

// TestFormIsFixed: what an older release has written is still read.
func TestFormIsFixed(t *testing.T) {
	t.Parallel()
	want := event.Event{Tenant: 3, Scope: "api:x", Control: true, ReceivedAt: time.Unix(1_764_000_000, 5).UTC(), Payload: []byte("{}")}
	got, err := spool.Decode([]byte("e\x01\x02\x01\x06\x04\x05api:x\x07\x00\x08\x06\x80\x84\xa4\x92\x0d\x05\x19\x02{}"))
	if d := cmp.Diff(store.Spooled{Event: want}, got); err != nil || d != "" {
		t.Errorf("%v %s\nit is %q", err, d, spool.EncodeEvent(want))
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"Nothing":       "",
		"NoVersion":     "e",
		"Stranger":      "x\x01",
		"LaterVersion":  "e\x02",
		"UnknownField":  "e\x01\x7f\x00",
		"NoLength":      "e\x01\x04",
		"Cut":           "e\x01\x04\x05api",
		"Twice":         "e\x01\x04\x01a\x04\x01b",
		"OutOfOrder":    "e\x01\x05\x01a\x04\x01b",
		"ShortID":       "e\x01\x01\x03abc",
		"NumberTooWide": "e\x01\x14\x02\x80\x02",
		"NumberAndMore": "e\x01\x02\x02\x01\x01",
		"HalfATime":     "e\x01\x08\x01\x02",
		"HugeLength":    "e\x01\x04\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"HalfAPair":     "b\x01\x09\x02\x01a",
	} {
		if got, err := spool.Decode([]byte(data)); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// FuzzDecode: no bytes make the decoder panic, and what it reads it writes and
// reads the same.
func FuzzDecode(f *testing.F) {
	var e event.Event
	fill(f, &e)
	f.Add(spool.EncodeEvent(e))
	f.Add(spool.EncodeEvent(event.Event{Payload: []byte{}}))
	var l store.Letter
	fill(f, &l, "Seq", "Status", "Attempts", "LastAttemptAt", "Event")
	f.Add(spool.EncodeBody(l))
	f.Add([]byte("e\x01\x04\x05api"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := spool.Decode(data)
		if err != nil {
			return
		}
		var again []byte
		if got.Body != nil {
			again = spool.EncodeBody(*got.Body)
		} else {
			again = spool.EncodeEvent(got.Event)
		}
		second, err := spool.Decode(again)
		if err != nil || !reflect.DeepEqual(second, got) {
			t.Errorf("got %+v, then %+v (%v)", got, second, err)
		}
	})
}
