# syntax=docker/dockerfile:1
#
# Two stages: one builds, the other holds the program, a CA bundle, and nothing to get in with.
#
# Both images are arguments, so that a release names them by digest and a machine without a registry names its own:
#   --build-arg BUILD_IMAGE=…@sha256:… --build-arg BASE_IMAGE=…@sha256:…
# Spans for an OpenTelemetry collector are in the program with
#   --build-arg FEATURES=otel
ARG BUILD_IMAGE=rust:1.95.0-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS builder
WORKDIR /build
# The same source gives the same program: no number of cores, no time and no path of a home folder gets into it.
ENV CARGO_INCREMENTAL=0 \
    RUSTFLAGS="--remap-path-prefix=/usr/local/cargo=/cargo --remap-path-prefix=/build=/nbi-upgrade"
ARG FEATURES=""
COPY Cargo.toml Cargo.lock ./
# Dependencies alone first: this layer stays until one of the two files changes.
# Benchmarks, examples and tests are not part of the image; cargo would miss the files of those that the manifest names.
RUN awk '/^\[/ { skip = /^\[\[(bench|example|test)\]\]/ } !skip' Cargo.toml >lean.toml \
    && mv lean.toml Cargo.toml \
    && mkdir src \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --features "$FEATURES" \
    && rm -r src
COPY src src
COPY deploy/nbi-upgrade.default.toml deploy/
ARG REVISION=unknown
# `touch`: cargo goes by times, and the copied files may be older than the empty ones above.
RUN touch src/main.rs src/lib.rs \
    && NBI_UPGRADE_REVISION="$REVISION" cargo build --release --locked --features "$FEATURES"

FROM ${BASE_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=""
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="nbi-upgrade" \
      org.opencontainers.image.description="RabbitMQ worker that upgrades the firmware of TR-069 devices through a management system's north-bound HTTP interface" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.base.name="$BASE_IMAGE"
COPY --from=builder --chmod=0755 /build/target/release/nbi-upgrade /usr/local/bin/nbi-upgrade
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/nbi-upgrade/
# `nonroot` of the image, as a number: Kubernetes can tell only of a number that it is not root.
USER 65532:65532
EXPOSE 9464
# There is no shell and no curl to ask with; the program asks itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/nbi-upgrade", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/nbi-upgrade"]
CMD ["worker"]
