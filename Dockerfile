# One static binary and nothing else: no shell, no package manager, no root.
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" -t tallyhook:dev .
#   docker run -p 127.0.0.1:3000:3000 -v tallyhook:/data tallyhook:dev

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
# The modules alone first: they change less often than the code does.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/tallyhook ./cmd/tallyhook \
	&& mkdir -m 0700 /out/data && mkdir -m 1777 /out/tmp

FROM scratch
# For PostgreSQL and Redis over TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A new named volume takes over owner and mode of the folder that it hides.
COPY --from=build --chown=65532:65532 /out/data /data
# SQLite sorts what is large in files there.
COPY --from=build /out/tmp /tmp
COPY --from=build /out/tallyhook /usr/local/bin/tallyhook

# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# DATABASE_URL is not set here: its default is tallyhook.db in the current
# folder, and a DATABASE_URL_FILE beside it would stop the start.
WORKDIR /data
VOLUME /data
ENV HOST=0.0.0.0 PORT=3000
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
	CMD ["/usr/local/bin/tallyhook", "smoke", "--ready", "--timeout", "4s"]
ENTRYPOINT ["/usr/local/bin/tallyhook"]
CMD ["serve"]
