# A small image with the daemon alone: no shell, no package manager, not root.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY .cargo .cargo
# Dependencies first, so that they are built again only when they change.
RUN mkdir -p src tests && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && echo 'fn main() {}' > tests/main.rs \
    && cargo build --release --locked && rm -r src tests
COPY .sqlx .sqlx
COPY migrations migrations
COPY templates templates
# The page shows it.
COPY docs/RUNBOOK.md docs/RUNBOOK.md
COPY src src
COPY tests/main.rs tests/main.rs
# The query data in .sqlx stands in for a database.
ENV SQLX_OFFLINE=true
RUN touch src/main.rs src/lib.rs && cargo build --release --locked \
    && install -d -o 65532 -g 65532 -m 0700 /out/var/lib/settled \
    && install -D target/release/settled /out/usr/bin/settled

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out /
WORKDIR /var/lib/settled
VOLUME ["/var/lib/settled"]
# In a container the listener must be reached from outside it; keep the port off the internet.
ENV SETTLED__STORE__PATH=/var/lib/settled/settled.db SETTLED__HTTP__LISTEN=0.0.0.0:9464
EXPOSE 9464
# Longer than shutdown.grace_s when the image is stopped: docker stop --time 30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=4s --start-period=20s --retries=3 CMD ["/usr/bin/settled", "health"]
ENTRYPOINT ["/usr/bin/settled"]
CMD ["run"]
