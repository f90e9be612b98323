// Package deploytest checks what an operator deploys with (the Dockerfile, the
// compose file, and the folder deploy) against the code: settings, routes,
// ports, times and metrics that are named there exist and agree. It has tests
// alone. They need promtool, and neither Docker nor Kubernetes nor systemd.
package deploytest
