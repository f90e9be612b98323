package deploytest_test

import (
	"go/version"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tallyhook/internal/httpapi"
)

// TestProbesAskRealRoutes: a probe of a path that is not there would kill every
// replica.
func TestProbesAskRealRoutes(t *testing.T) {
	t.Parallel()
	public := map[string]bool{}
	for _, r := range httpapi.Routes() {
		if r.Method == http.MethodGet && r.Class == "public" {
			public[r.Path] = true
		}
	}
	c := container(t)
	for probe, want := range map[string]string{"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"} {
		get := c.at(probe + ".httpGet")
		if path := get.at("path").text(); path != want || !public[path] {
			t.Errorf("%s asks %q, want %s, which is a public route: %v", probe, path, want, public[path])
		}
		if got := get.at("port").text(); got != "http" {
			t.Errorf("%s asks port %q", probe, got)
		}
	}
}

// TestImagesArePinned: "latest" is another image tomorrow.
func TestImagesArePinned(t *testing.T) {
	t.Parallel()
	images := map[string]string{"kubernetes": container(t).at("image").text()}
	for name, service := range document(t, "docker-compose.yml").at("services").fields() {
		images[name] = defaulted(service.at("image").text())
	}
	stages := 0
	for _, i := range instructions(t, false) {
		if i.word != "FROM" {
			continue
		}
		stages++
		if image := strings.Fields(i.rest)[0]; image != "scratch" {
			images["Dockerfile"] = image
		}
	}
	if stages != 2 {
		t.Errorf("the Dockerfile has %d stages, want one that builds and one that is kept", stages)
	}
	tagged := regexp.MustCompile(`^[a-z0-9./-]+:([a-zA-Z0-9._-]+)(@sha256:[0-9a-f]{64})?$`)
	for where, image := range images {
		if m := tagged.FindStringSubmatch(image); m == nil || m[1] == "latest" {
			t.Errorf("%s: image %q is not pinned", where, image)
		}
	}
	have := regexp.MustCompile(`^golang:(\d+\.\d+\.\d+)-`).FindStringSubmatch(images["Dockerfile"])
	need := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "go.mod"))
	if have == nil || need == nil || version.Compare("go"+have[1], "go"+need[1]) < 0 {
		t.Errorf("the image is built with %v, and go.mod wants %v", have, need)
	}
	if !slices.ContainsFunc(instructions(t, false), func(i instruction) bool {
		return i.word == "RUN" && strings.Contains(i.rest, "CGO_ENABLED=0")
	}) {
		t.Error("the binary is not static: an image without a C library cannot run it")
	}
}

// TestNobodyIsRoot, and nobody may become it.
func TestNobodyIsRoot(t *testing.T) {
	t.Parallel()
	numeric := regexp.MustCompile(`^[1-9]\d*(:\d+)?$`)
	user := one(t, "USER")
	if !numeric.MatchString(user) {
		t.Errorf("the image's user is %q, want a number", user)
	}
	uid, _, _ := strings.Cut(user, ":")
	owned := 0
	for _, i := range instructions(t, true) {
		if i.word == "COPY" && strings.Contains(i.rest, "--chown="+user) && strings.HasSuffix(i.rest, " "+one(t, "VOLUME")) {
			owned++
		}
	}
	if owned != 1 {
		t.Errorf("the volume %s is not the user's", one(t, "VOLUME"))
	}
	for name, s := range document(t, "docker-compose.yml").at("services").fields() {
		if u := s.at("user").text(); !numeric.MatchString(u) && name != "tallyhook" || name == "tallyhook" && u != "" {
			t.Errorf("service %s runs as %q", name, u)
		}
		if !slices.Equal(s.at("cap_drop").texts(), []string{"ALL"}) || !slices.Contains(s.at("security_opt").texts(), "no-new-privileges:true") {
			t.Errorf("service %s may gain privileges", name)
		}
		if s.at("restart").text() == "" {
			t.Errorf("service %s is not started again", name)
		}
		if len(s.at("healthcheck").fields()) == 0 && name != "tallyhook" {
			t.Errorf("service %s has no health check", name)
		}
	}
	all, own := pod(t).at("securityContext"), container(t).at("securityContext")
	for what, ok := range map[string]bool{
		"runAsNonRoot":             all.at("runAsNonRoot").text() == "true",
		"runAsUser":                all.at("runAsUser").text() == uid,
		"fsGroup":                  all.at("fsGroup").text() == uid,
		"seccompProfile":           all.at("seccompProfile.type").text() == "RuntimeDefault",
		"allowPrivilegeEscalation": own.at("allowPrivilegeEscalation").text() == "false",
		"readOnlyRootFilesystem":   own.at("readOnlyRootFilesystem").text() == "true",
		"capabilities":             slices.Equal(own.at("capabilities.drop").texts(), []string{"ALL"}),
		"enableServiceLinks":       pod(t).at("enableServiceLinks").text() == "false",
		"service account":          pod(t).at("automountServiceAccountToken").text() == "false",
	} {
		if !ok {
			t.Errorf("kubernetes: %s is not what it should be", what)
		}
	}
	u := unit(t)
	for name, want := range map[string]string{
		"User": "tallyhook", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
		"PrivateDevices": "yes", "CapabilityBoundingSet": "", "StateDirectory": "tallyhook", "UMask": "0077",
		"MemoryDenyWriteExecute": "yes", "RestartPreventExitStatus": "2", "SystemCallErrorNumber": "EPERM",
	} {
		if got := u[name]; len(got) != 1 || got[0] != want {
			t.Errorf("systemd: %s=%v, want %q", name, got, want)
		}
	}
	if !regexp.MustCompile(`(?m)^u tallyhook - `).MatchString(read(t, "deploy/systemd/tallyhook.sysusers")) {
		t.Error("systemd: nothing makes the user")
	}
}

// TestSpoolIsDurable: events in the spool were acknowledged, so it is on a
// volume that outlives the container, and that one process holds.
func TestSpoolIsDurable(t *testing.T) {
	t.Parallel()
	envs := environments(t)
	under := func(path string, mounts []string) string {
		for _, m := range mounts {
			if strings.HasPrefix(path, m+"/") {
				return m
			}
		}
		return ""
	}
	compose := document(t, "docker-compose.yml")
	volume, target, _ := strings.Cut(compose.at("services.tallyhook.volumes.0").text(), ":")
	if _, named := compose.at("volumes").fields()[volume]; !named || under(envs["docker-compose.yml"]["SPOOL_DIR"], []string{target}) == "" {
		t.Errorf("docker-compose.yml: SPOOL_DIR is not on a named volume")
	}
	for _, v := range []string{"postgres-data", "redis-data", "prometheus-data", "grafana-data"} {
		if _, named := compose.at("volumes").fields()[v]; !named {
			t.Errorf("docker-compose.yml has no volume %s", v)
		}
	}
	set := object(t, "statefulset.yaml", "StatefulSet", "tallyhook").at("spec")
	claim := set.at("volumeClaimTemplates.0")
	mount := container(t).at("volumeMounts").byName(t, claim.at("metadata.name").text()).at("mountPath").text()
	if under(envs["kubernetes"]["SPOOL_DIR"], []string{mount}) == "" {
		t.Errorf("kubernetes: SPOOL_DIR is not below %s", mount)
	}
	if got := claim.at("spec.accessModes").texts(); !slices.Equal(got, []string{"ReadWriteOncePod"}) {
		t.Errorf("kubernetes: the spool's volume is %v", got)
	}
	for _, when := range []string{"whenDeleted", "whenScaled"} {
		if got := set.at("persistentVolumeClaimRetentionPolicy." + when).text(); got != "Retain" {
			t.Errorf("kubernetes: %s is %q: acknowledged events would be deleted", when, got)
		}
	}
	redis := read(t, "deploy/redis/redis.conf")
	for _, line := range []string{"maxmemory-policy noeviction", "appendonly yes", "appendfsync everysec"} {
		if !strings.Contains(redis, "\n"+line+"\n") {
			t.Errorf("redis.conf does not say %s", line)
		}
	}
}
