package nbd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torpor/internal/kerneltest"
)

// authority signs certificates, in a directory as GnuTLS clients want it.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", x509.KeyUsageCertSign, nil)
	return a
}

// issue makes a certificate, which NAME-cert.pem and NAME-key.pem are files of.
func (a *authority) issue(name string, usage x509.KeyUsage, uses []x509.ExtKeyUsage) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: usage, ExtKeyUsage: uses, BasicConstraintsValid: true, IsCA: a.cert == nil,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+"-cert.pem", "CERTIFICATE", der)
	a.write(name+"-key.pem", "PRIVATE KEY", keyDER)
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) {
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(a.dir, name), data, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// config is a server's, with a certificate of its own.
func (a *authority) config(clients tls.ClientAuthType) *tls.Config {
	cert, key := a.issue("server", x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		ClientCAs:    pool,
		ClientAuth:   clients,
	}
}

// serveTCP serves on a TCP port too, and returns it.
func serveTCP(t *testing.T, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen(t, s, l)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestTLSClients(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("nbdinfo"), kerneltest.Program("nbdcopy"), kerneltest.Program("qemu-img"))
	a := newAuthority(t)
	a.issue("client", x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth})
	config := a.config(tls.RequireAndVerifyClientCert)
	path, content := sparseFile(t, 16*mib)
	d := newRAM(16*mib, 4096)
	s, _ := serve(t, ServerSpec{TLS: config, RequireTLS: true}, Export{Name: "disk", Device: d})
	port := serveTCP(t, s)
	uri := "nbds://127.0.0.1:" + port + "/disk?tls-certificates=" + a.dir
	run(t, "nbdcopy", path, uri)
	if string(d.memory) != string(content) {
		t.Error("wrong content")
	}
	wantParts(t, run(t, "nbdinfo", uri), "protocol: newstyle-fixed with TLS", "export-size: 16777216")
	out := run(t, "qemu-img", "compare", "--object", "tls-creds-x509,id=tls,endpoint=client,dir="+a.dir,
		"--image-opts", "driver=raw,file.driver=file,file.filename="+path,
		"driver=nbd,export=disk,tls-creds=tls,server.type=inet,server.host=127.0.0.1,server.port="+port)
	wantParts(t, out, "Images are identical")

	stranger := newAuthority(t)
	stranger.issue("client", x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth})
	if err := os.Rename(filepath.Join(a.dir, "ca-cert.pem"), filepath.Join(stranger.dir, "ca-cert.pem")); err != nil {
		t.Fatal(err)
	}
	if out, err := try(t, "nbdinfo", "nbds://127.0.0.1:"+port+"/disk?tls-certificates="+stranger.dir); err == nil {
		t.Errorf("certificate of a stranger was accepted:\n%s", out)
	}
	if out, err := try(t, "nbdinfo", "nbd://127.0.0.1:"+port+"/disk"); err == nil || !strings.Contains(out, "TLS") {
		t.Errorf("client without TLS:\n%s", out)
	}
}

// secured is a client that has started TLS.
func secured(t *testing.T, socket string) *client {
	t.Helper()
	c := greeted(t, socket, 3)
	if got := c.final(optionStartTLS, nil); got != replyAck {
		t.Fatalf("STARTTLS: %#x", got)
	}
	c.conn = tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	return c
}

func TestTLSIsRequired(t *testing.T) {
	config := newAuthority(t).config(tls.NoClientCert)
	_, socket := serve(t, ServerSpec{TLS: config, RequireTLS: true}, Export{Name: "a", Device: newRAM(mib, 4096)})
	c := greeted(t, socket, 3)
	for _, code := range []uint32{optionList, optionGo, optionInfo, optionStructuredReply, 77} {
		if got := c.final(code, infoData("a")); got != replyErrorTLSRequired {
			t.Errorf("option %d: %#x", code, got)
		}
	}
	c.write(optionBytes(optionExportName, []byte("a")))
	c.hungUp()
	c = secured(t, socket)
	if got := c.final(optionStartTLS, nil); got != replyErrorInvalid {
		t.Errorf("second STARTTLS: %#x", got)
	}
	if got := c.final(optionGo, infoData("a")); got != replyAck {
		t.Fatalf("GO: %#x", got)
	}
	c.readAt(0, 4096)
	c.send(commandDisconnect, 0, 0, 0, nil)
	c.hungUp()
	if _, err := New(ServerSpec{RequireTLS: true}); err == nil {
		t.Error("server without a configuration that requires TLS")
	}
}

// TestTLSForgets wants nothing that was agreed on in plain text to be valid in
// TLS, and no plain text to be taken for it.
func TestTLSForgets(t *testing.T) {
	config := newAuthority(t).config(tls.NoClientCert)
	_, socket := serve(t, ServerSpec{TLS: config}, Export{Name: "a", Device: newRAM(mib, 4096)})
	transmits(t, socket, "a", false).readAt(0, 4096) // TLS is allowed, not required
	c := greeted(t, socket, 3)
	c.option(optionStructuredReply, nil)
	if got := c.final(optionStartTLS, []byte("x")); got != replyErrorInvalid {
		t.Errorf("STARTTLS with data: %#x", got)
	}
	if got := c.final(optionStartTLS, nil); got != replyAck {
		t.Fatalf("STARTTLS: %#x", got)
	}
	c.conn = tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if got := c.final(optionGo, infoData("a")); got != replyAck {
		t.Fatalf("GO: %#x", got)
	}
	c.readAt(0, 4096) // a simple reply

	eager := greeted(t, socket, 3)
	eager.write(optionBytes(optionStartTLS, nil), optionBytes(optionList, nil))
	eager.hungUp()
}
