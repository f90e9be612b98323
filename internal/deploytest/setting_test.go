package deploytest_test

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tallyhook/internal/config"
	"tallyhook/internal/testenv"
)

// environments are the variables of the server in each kind of deployment.
func environments(t *testing.T) map[string]map[string]string {
	t.Helper()
	image := map[string]string{}
	for pair := range strings.FieldsSeq(one(t, "ENV")) {
		name, value, _ := strings.Cut(pair, "=")
		image[name] = value
	}
	with := func(more map[string]string) map[string]string {
		all := maps.Clone(image)
		maps.Copy(all, more)
		return all
	}
	compose := map[string]string{}
	for name, value := range document(t, "docker-compose.yml").at("services.tallyhook.environment").fields() {
		compose[name] = defaulted(value.text())
	}
	pod := map[string]string{}
	for _, e := range container(t).at("env").list() {
		pod[e.at("name").text()] = e.at("value").text()
	}
	service := map[string]string{}
	for _, line := range unit(t)["Environment"] {
		for pair := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(pair, "=")
			service[name] = value
		}
	}
	return map[string]map[string]string{"Dockerfile": image, "docker-compose.yml": with(compose), "kubernetes": with(pod), "systemd": service}
}

// defaulted is ${NAME:-value} as it is where NAME is not set.
func defaulted(s string) string {
	if before, after, ok := strings.Cut(s, "${"); ok {
		inside, rest, _ := strings.Cut(after, "}")
		_, value, _ := strings.Cut(inside, ":-")
		return before + value + rest
	}
	return s
}

func container(t *testing.T) node {
	t.Helper()
	return pod(t).at("containers").byName(t, "tallyhook")
}

func pod(t *testing.T) node {
	t.Helper()
	return object(t, "statefulset.yaml", "StatefulSet", "tallyhook").at("spec.template.spec")
}

// TestSettingsExist: each variable is a setting, with a value that the server
// accepts, and none is given twice over.
func TestSettingsExist(t *testing.T) {
	t.Parallel()
	settings := map[string]bool{} // with whether it may be given as a file
	for _, s := range config.Settings() {
		settings[s.Name] = s.Secret
	}
	for where, env := range environments(t) {
		var known []string
		for name, value := range env {
			base, isFile := strings.CutSuffix(name, "_FILE")
			mayBeFile, ok := settings[base]
			switch {
			case !ok || isFile && !mayBeFile:
				t.Errorf("%s sets %s, which is no setting", where, name)
			case isFile && env[base] != "":
				t.Errorf("%s sets %s and %s, which stops the start", where, base, name)
			case mayBeFile && !isFile && base != "DATABASE_URL":
				t.Errorf("%s has the secret %s in the environment; use %s_FILE", where, name, name)
			}
			if !isFile {
				known = append(known, name+"="+value)
			}
		}
		c, err := config.Load(nil, known)
		if err != nil {
			t.Errorf("%s: %v", where, err)
		}
		for _, w := range c.Warnings {
			t.Errorf("%s: %s", where, w)
		}
	}
}

// TestCommandsExist: what is run is a command with these flags.
func TestCommandsExist(t *testing.T) {
	t.Parallel()
	entry := words(t, one(t, "ENTRYPOINT"))
	if len(entry) != 1 {
		t.Fatalf("ENTRYPOINT %v, want the program alone", entry)
	}
	_, health, _ := strings.Cut(one(t, "HEALTHCHECK"), "CMD ")
	check := words(t, health)
	if check[0] != entry[0] {
		t.Errorf("the health check runs %s, want %s", check[0], entry[0])
	}
	start := strings.Fields(unit(t)["ExecStart"][0])
	for where, args := range map[string][]string{
		"HEALTHCHECK":        check[1:],
		"CMD":                words(t, one(t, "CMD")),
		"docker-compose.yml": document(t, "docker-compose.yml").at("services.tallyhook.command").texts(),
		"kubernetes":         container(t).at("args").texts(),
		"systemd":            start[1:],
	} {
		if got := testenv.Run(t, t.TempDir(), nil, append(args, "--help")...); got.Code != 0 || len(args) == 0 {
			t.Errorf("%s runs tallyhook %v: code %d, %s", where, args, got.Code, got.Stderr)
		}
	}
}

// TestGraceIsLonger: whoever stops the server waits longer than its own
// shutdown may take.
func TestGraceIsLonger(t *testing.T) {
	t.Parallel()
	spec := pod(t)
	preStop := container(t).at("lifecycle.preStop.sleep.seconds").seconds(t)
	for where, grace := range map[string]time.Duration{
		"docker-compose.yml": document(t, "docker-compose.yml").at("services.tallyhook.stop_grace_period").seconds(t),
		"kubernetes":         spec.at("terminationGracePeriodSeconds").seconds(t) - preStop,
		"systemd":            node{unit(t)["TimeoutStopSec"][0]}.seconds(t),
	} {
		c, err := config.Load(nil, []string{"SHUTDOWN_TIMEOUT=" + environments(t)[where]["SHUTDOWN_TIMEOUT"]})
		if err != nil {
			t.Fatal(err)
		}
		if grace < c.ShutdownTimeout+5*time.Second {
			t.Errorf("%s leaves %v, want 5s more than SHUTDOWN_TIMEOUT, %v", where, grace, c.ShutdownTimeout)
		}
	}
	if preStop <= 0 {
		t.Error("no preStop: requests that arrive before proxies know are refused")
	}
}

// TestSecretsAreThere: every file that a setting names is mounted, and the
// compose file's secrets are the ones that the script makes.
func TestSecretsAreThere(t *testing.T) {
	t.Parallel()
	compose := document(t, "docker-compose.yml")
	envs := environments(t)
	granted := compose.at("services.tallyhook.secrets").texts()
	for name, path := range envs["docker-compose.yml"] {
		if strings.HasSuffix(name, "_FILE") && !slices.Contains(granted, strings.TrimPrefix(path, "/run/secrets/")) {
			t.Errorf("docker-compose.yml: %s=%s, which the service is not given", name, path)
		}
	}
	example := object(t, "secret.example.yaml", "Secret", "tallyhook").at("stringData").fields()
	mount := container(t).at("volumeMounts").byName(t, "secrets").at("mountPath").text() + "/"
	for name, path := range envs["kubernetes"] {
		key, ok := strings.CutPrefix(path, mount)
		if !strings.HasSuffix(name, "_FILE") {
			continue
		}
		if value, has := example[key]; !ok || !has || value.text() != "" {
			t.Errorf("kubernetes: %s=%s is not an empty entry of the Secret's example", name, path)
		}
	}
	for name, path := range envs["systemd"] {
		if id, ok := strings.CutPrefix(path, "%d/"); ok && !slices.ContainsFunc(unit(t)["LoadCredential"], func(c string) bool { return strings.HasPrefix(c, id+":") }) {
			t.Errorf("systemd: %s=%s, which no LoadCredential loads", name, path)
		}
	}

	dir := t.TempDir()
	script := filepath.Join(dir, "scripts", "compose-secrets")
	if err := os.Mkdir(filepath.Dir(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(read(t, "scripts/compose-secrets")), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func() string {
		out, err := exec.CommandContext(t.Context(), "bash", script).CombinedOutput()
		if err != nil {
			t.Fatalf("compose-secrets: %v\n%s", err, out)
		}
		return string(out)
	}
	run()
	made := map[string]string{}
	for name, secret := range compose.at("secrets").fields() {
		file, ok := strings.CutPrefix(secret.at("file").text(), "./secrets/")
		raw, err := os.ReadFile(filepath.Join(dir, "secrets", file))
		if !ok || err != nil {
			t.Errorf("secret %s: file %s, %v", name, secret.at("file").text(), err)
		}
		made[name] = strings.TrimSpace(string(raw))
	}
	if again := run(); again != "" {
		t.Errorf("a second run of compose-secrets has made something: %s", again)
	}
	if _, err := config.Load(nil, []string{"API_KEY=" + made["api_key"], "SECRETS_KEY=" + made["secrets_key"]}); err != nil {
		t.Error(err)
	}
	if !strings.Contains(made["database_url"], ":"+made["postgres_password"]+"@postgres:") {
		t.Error("the database's URL has not the password of PostgreSQL")
	}
	if password, ok := strings.CutPrefix(made["redis_auth"], "requirepass "); !ok || !strings.Contains(made["redis_url"], ":"+password+"@redis:") {
		t.Error("the URL of Redis has not the password of Redis")
	}
	info, err := os.Stat(filepath.Join(dir, "secrets"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of secrets: %v, %v; want mode 0700", info, err)
	}
	for _, file := range []string{".gitignore", ".dockerignore"} {
		if lines := strings.Fields(read(t, file)); !slices.Contains(lines, "secrets") && !slices.Contains(lines, "/secrets/") {
			t.Errorf("%s lets the secrets in", file)
		}
	}
}

// port is the port of an address such as :9091.
func port(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// published lists "host port -> container port" of a service, which must all
// be on the loopback address.
func published(t *testing.T, service node) []string {
	t.Helper()
	var all []string
	for _, p := range service.at("ports").texts() {
		rest, ok := strings.CutPrefix(p, "127.0.0.1:")
		if !ok {
			t.Errorf("port %s is open to every network", p)
		}
		all = append(all, rest)
	}
	return all
}

// TestPortsAgree: whoever connects does so where somebody listens.
func TestPortsAgree(t *testing.T) {
	t.Parallel()
	envs := environments(t)
	compose := document(t, "docker-compose.yml").at("services")
	web, metrics := envs["docker-compose.yml"]["PORT"], port(t, envs["docker-compose.yml"]["METRICS_ADDR"])
	if got := one(t, "EXPOSE"); got != web {
		t.Errorf("EXPOSE %s, and the server listens on %s", got, web)
	}
	if got, want := fmt.Sprint(published(t, compose.at("tallyhook"))), fmt.Sprintf("[3000:%s 9091:%s]", web, metrics); got != want {
		t.Errorf("published %s, want %s", got, want)
	}
	for name, service := range compose.fields() {
		published(t, service)
		if service.at("privileged").text() == "true" || service.at("network_mode").text() != "" {
			t.Errorf("service %s has more than it needs", name)
		}
	}
	targets := document(t, "deploy/prometheus/prometheus.yml").at("scrape_configs.0.static_configs.0.targets").texts()
	if want := "tallyhook:" + metrics; !slices.Equal(targets, []string{want}) {
		t.Errorf("Prometheus scrapes %v, want %s", targets, want)
	}
	source := document(t, "deploy/grafana/provisioning/datasources/prometheus.yml").at("datasources.0.url").text()
	if want := "http://prometheus:9090"; source != want || published(t, compose.at("prometheus"))[0] != "9090:9090" {
		t.Errorf("Grafana asks %s, want %s", source, want)
	}
	shared := func(a, b string) {
		t.Helper()
		of := compose.at(b + ".networks").texts()
		if !slices.ContainsFunc(compose.at(a+".networks").texts(), func(n string) bool { return slices.Contains(of, n) }) {
			t.Errorf("%s and %s share no network", a, b)
		}
	}
	shared("tallyhook", "postgres")
	shared("tallyhook", "redis")
	shared("prometheus", "tallyhook")
	shared("grafana", "prometheus")

	ports := container(t).at("ports")
	if got := ports.byName(t, "http").at("containerPort").text(); got != envs["kubernetes"]["PORT"] {
		t.Errorf("kubernetes: http is %s, and the server listens on %s", got, envs["kubernetes"]["PORT"])
	}
	if got, want := ports.byName(t, "metrics").at("containerPort").text(), port(t, envs["kubernetes"]["METRICS_ADDR"]); got != want {
		t.Errorf("kubernetes: metrics is %s, and the server listens on %s", got, want)
	}
	labels := object(t, "statefulset.yaml", "StatefulSet", "tallyhook").at("spec.template.metadata.labels").text()
	for name, target := range map[string]string{"tallyhook": "http", "tallyhook-replicas": "metrics"} {
		s := object(t, "service.yaml", "Service", name).at("spec")
		if got := s.at("ports.0.targetPort").text(); got != target || s.at("selector").text() != labels {
			t.Errorf("service %s sends to %s of %s", name, got, s.at("selector").text())
		}
	}
	if got := object(t, "statefulset.yaml", "StatefulSet", "tallyhook").at("spec.serviceName").text(); got != "tallyhook-replicas" {
		t.Errorf("the replicas are named by service %q", got)
	}
	for i, target := range []string{"http", "metrics"} {
		if got := object(t, "networkpolicy.yaml", "NetworkPolicy", "tallyhook").at(fmt.Sprintf("spec.ingress.%d.ports.0.port", i)).text(); got != target {
			t.Errorf("the network policy lets %q in, want %s", got, target)
		}
	}
}
