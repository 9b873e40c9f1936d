# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS builder
WORKDIR /build
# Dependencies alone first: this layer stays until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src
COPY src src
COPY deploy/nbi-upgrade.default.toml deploy/
ARG REVISION=unknown
# `touch`: cargo goes by times, and the copied files may be older than the empty ones above.
RUN touch src/main.rs src/lib.rs \
    && NBI_UPGRADE_REVISION="$REVISION" cargo build --release --locked

# No shell, no package manager, a user without rights; with the CA bundle that TLS needs.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nbi-upgrade" \
      org.opencontainers.image.description="RabbitMQ worker that upgrades the firmware of TR-069 devices through a management system's north-bound HTTP interface" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=builder /build/target/release/nbi-upgrade /usr/local/bin/nbi-upgrade
USER nonroot
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/nbi-upgrade", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/nbi-upgrade"]
CMD ["worker"]
