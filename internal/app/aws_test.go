package app_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tallyhook/internal/testenv"
)

const (
	awsHost  = "sns.eu-west-1.amazonaws.com"
	awsTopic = "arn:aws:sns:eu-west-1:123456789012:mail"
	// awsCertificate is where the certificate of the messages is.
	awsCertificate = "https://" + awsHost + "/SimpleNotificationService-own.pem"
)

// aws stands for SNS, over real sockets: the server under test reaches it by a
// proxy, and trusts its name by an authority of the test's own.
type aws struct {
	t         *testing.T
	key       *rsa.PrivateKey
	proxy     string // its URL
	authority string // the file with the authority's certificate

	mu     sync.Mutex
	called []string // addresses, by everyone who has called
	down   bool
}

func newAWS(t *testing.T) *aws {
	t.Helper()
	a := &aws{t: t, authority: filepath.Join(t.TempDir(), "authority.pem")}
	var err error
	if a.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	signing := a.certify(a.key.Public(), a.key, &x509.Certificate{SerialNumber: big.NewInt(1)}, nil)

	caKey, caForm := a.ecKey(), &x509.Certificate{
		SerialNumber: big.NewInt(2), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	ca := a.certify(caKey.Public(), caKey, caForm, nil)
	siteKey := a.ecKey()
	site := a.certify(siteKey.Public(), caKey, &x509.Certificate{
		SerialNumber: big.NewInt(3), DNSNames: []string{awsHost}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, caForm)
	if err := os.WriteFile(a.authority, pemOf(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	https := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.called = append(a.called, "https://"+r.Host+r.URL.RequestURI())
		switch {
		case a.down:
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasSuffix(r.URL.Path, "-own.pem"):
			_, _ = w.Write(pemOf(signing)) // a caller that is gone fails its own test
		case r.URL.Path == "/moved.pem":
			http.Redirect(w, r, awsCertificate, http.StatusFound)
		}
	}))
	https.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{site}, PrivateKey: siteKey}}, MinVersion: tls.VersionTLS12}
	https.StartTLS()
	t.Cleanup(https.Close)
	proxy := httptest.NewServer(connectTo(t, awsHost+":443", https.Listener.Addr().String()))
	t.Cleanup(proxy.Close)
	a.proxy = proxy.URL
	return a
}

// connectTo is a proxy that knows one host.
func connectTo(t *testing.T, host, addr string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != host {
			t.Errorf("the server asks for %s %s", r.Method, r.Host)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		var d net.Dialer
		there, err := d.DialContext(r.Context(), "tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			t.Error(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = io.Copy(there, here) // ends when either side does
			there.Close()               //nolint:errcheck // the copy has ended
		})
		_, _ = io.Copy(here, there)
		here.Close() //nolint:errcheck // the copy has ended
		wg.Wait()
	})
}

func (a *aws) ecKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// certify makes a certificate; without a parent it is its own.
func (a *aws) certify(public, by any, form, parent *x509.Certificate) []byte {
	a.t.Helper()
	if parent == nil {
		parent = form
	}
	der, err := x509.CreateCertificate(rand.Reader, form, parent, public, by)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// env makes a server take this for AWS.
func (a *aws) env() []string {
	return []string{"HTTPS_PROXY=" + a.proxy, "SSL_CERT_FILE=" + a.authority}
}

func (a *aws) setDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
}

// calls counts the calls of addresses that begin so.
func (a *aws) calls(prefix string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, address := range a.called {
		if strings.HasPrefix(address, prefix) {
			n++
		}
	}
	return n
}

// sign puts an SES record into a message of SNS. The source has no secret: a
// wrong one stands for a message that was changed.
func (a *aws) sign(w webhook) ([]byte, []testenv.Header) {
	body := a.message(map[string]string{"MessageId": "sns-" + w.n, "Message": string(w.body)})
	if w.secret == wrongSecret("ses") {
		body = []byte(strings.Replace(string(body), "sns-"+w.n, "sns-"+w.n+"0", 1))
	}
	return body, []testenv.Header{{Name: "Content-Type", Value: "text/plain; charset=UTF-8"}}
}

// message makes a signed message of SNS; members replace or add to the usual ones.
func (a *aws) message(members map[string]string) []byte {
	a.t.Helper()
	m := map[string]string{
		"Type": "Notification", "MessageId": "sns-0", "TopicArn": awsTopic, "Message": "{}", "Timestamp": "2026-11-20T09:30:01.000Z",
		"SignatureVersion": "2", "SigningCertURL": awsCertificate,
	}
	maps.Copy(m, members)
	var signed strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if name != "SignatureVersion" && name != "SigningCertURL" {
			signed.WriteString(name + "\n" + m[name] + "\n")
		}
	}
	sum := sha256.Sum256([]byte(signed.String()))
	signature, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		a.t.Fatal(err)
	}
	m["Signature"] = base64.StdEncoding.EncodeToString(signature)
	body, err := json.Marshal(m)
	if err != nil {
		a.t.Fatal(err)
	}
	return body
}
