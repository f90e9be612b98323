package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// mailgunBody is a body in any of Mailgun's forms.
type mailgunBody struct {
	timestamp, token, signature string
	data                        object     // event-data; nil in the legacy form
	form                        formFields // the legacy form; nil otherwise
	raw                         jsontext.Value
}

// formFields are a form's fields, each with its values in their order.
type formFields map[string][]string

// first gives the first value of the first field that has one.
func (f formFields) first(names ...string) string {
	for _, name := range names {
		for _, v := range f[name] {
			if v != "" {
				return v
			}
		}
	}
	return ""
}

func (f formFields) last(name string) string {
	if values := f[name]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// maxFields bounds the fields of a form.
const maxFields = 1000

func readMailgun(req Request) (mailgunBody, error) {
	raw := bytes.TrimSpace(req.Body)
	if jsontext.Value(raw).Kind() != '{' {
		return readMailgunForm(req)
	}
	o, err := readObject(raw)
	if err != nil {
		return mailgunBody{}, err
	}
	signature := memberObject(o, "signature")
	if data := memberObject(o, "event-data"); data != nil {
		return mailgunBody{
			timestamp: signature.text("timestamp"), token: signature.text("token"), signature: signature.text("signature"),
			data: data, raw: raw,
		}, nil
	}
	if o["token"].Kind() != 0 && signature == nil { // a legacy form that was turned into JSON on the way
		form := formFields{}
		for name, v := range o {
			form[name] = texts(v)
		}
		return legacyMailgun(form, raw), nil
	}
	return mailgunBody{data: o, raw: raw}, nil // event-data by itself, as Mailgun's log has it
}

func legacyMailgun(form formFields, raw jsontext.Value) mailgunBody {
	return mailgunBody{
		timestamp: form.last("timestamp"), token: form.last("token"), signature: form.last("signature"), form: form, raw: raw,
	}
}

// readMailgunForm reads a form of either encoding. Its files (the bounce's
// message) are passed over.
func readMailgunForm(req Request) (mailgunBody, error) {
	var form formFields
	kind, params, err := mime.ParseMediaType(req.header("Content-Type"))
	if err == nil && kind == "multipart/form-data" {
		if form, err = readMultipart(req.Body, params["boundary"]); err != nil {
			return mailgunBody{}, err
		}
	} else {
		values, err := url.ParseQuery(string(req.Body))
		if err != nil || len(values) > maxFields {
			return mailgunBody{}, errors.New("the body is neither JSON nor a form")
		}
		form = formFields(values)
	}
	if form.last("event") == "" {
		return mailgunBody{}, errors.New("the form has no field event")
	}
	raw, err := formJSON(form)
	if err != nil {
		return mailgunBody{}, err
	}
	return legacyMailgun(form, raw), nil
}

func readMultipart(body []byte, boundary string) (formFields, error) {
	if boundary == "" {
		return nil, errors.New("the form has no boundary")
	}
	form := formFields{}
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for n := 0; ; n++ {
		part, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return form, nil
		}
		if err != nil || n == maxFields {
			return nil, errors.New("the form cannot be read")
		}
		if part.FileName() != "" {
			continue
		}
		v, err := io.ReadAll(part)
		if err != nil {
			return nil, errors.New("the form ends in the middle")
		}
		form[part.FormName()] = append(form[part.FormName()], string(v))
	}
}

// formJSON is a form as an object, for what is kept of it: a text for each
// field, a list where a field came more than once.
func formJSON(form formFields) (jsontext.Value, error) {
	fields := make(map[string]any, len(form))
	for name, values := range form {
		clean := make([]string, len(values))
		for i, v := range values {
			clean[i] = strings.ToValidUTF8(v, "\uFFFD")
		}
		name = strings.ToValidUTF8(name, "\uFFFD")
		if fields[name] = any(clean); len(clean) == 1 {
			fields[name] = clean[0]
		}
	}
	raw, err := json.Marshal(fields, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode the form: %w", err)
	}
	return raw, nil
}

// mailgunHeaders reads a message's headers, a text that holds JSON: a list of
// [name, value]. Names are folded, the first of a name counts.
func mailgunHeaders(s string) map[string]string {
	headers := map[string]string{}
	if !strings.HasPrefix(strings.TrimSpace(s), "[") {
		return headers
	}
	items, err := readItems([]byte(s))
	if err != nil {
		return headers
	}
	for _, item := range items {
		if item.Kind() != '[' {
			continue
		}
		pair, err := readItems(item)
		if err != nil || len(pair) != 2 {
			continue
		}
		name := strings.ToLower(object{"": pair[0]}.text(""))
		if _, known := headers[name]; !known {
			headers[name] = object{"": pair[1]}.text("")
		}
	}
	return headers
}
