# What is done every day. `just` lists it. The lines are those of `.ci/run`, which needs no just.

# Lists the recipes.
default:
    @just --list --unsorted

# Everything that must pass before a push: format, clippy, docs, tests, checks.
check:
    bash .ci/run

# Runs all tests, or those whose name contains the given text.
test *filter:
    bash tests/run {{ filter }}

# Checks images, manifests, dashboards, rules, schemas, examples and dependencies, or only the named one.
artefacts *name:
    bash tests/checks/run {{ name }}

# Runs one story, or all of them: `just story a_device_that_never_answers`.
story name="stories::":
    bash tests/run {{ name }}

# Sends fleets through storms of crashes and troubles: `just storm 1000`.
storm times="100":
    NBI_UPGRADE_STORMS={{ times }} bash tests/run storms

# Runs the tests against a real RabbitMQ: the driver alone, and whole workers.
broker:
    bash tests/run amqp_driver
    bash tests/run fleet

# Runs all tests, or those named, with the long versions of those that have one: an hour for all.
long *filter:
    NBI_UPGRADE_LONG=1 bash tests/run {{ filter }}

# Kills workers and brokers under 10,000 jobs, about 5 minutes: `just soak`, `just soak 2000`.
soak jobs="10000":
    NBI_UPGRADE_LONG=1 NBI_UPGRADE_SOAK_JOBS={{ jobs }} cargo test --test it chaos::soak -- --nocapture

# Kills workers, kills nodes and cuts one off, of three, under 10,000 jobs, about 4 minutes.
cluster jobs="10000":
    NBI_UPGRADE_LONG=1 NBI_UPGRADE_SOAK_JOBS={{ jobs }} cargo test --test it chaos::cluster -- --nocapture

# Shows a fleet upgrading; nothing to install.
demo *arguments:
    cargo run --release -- demo {{ arguments }}

# Measures end to end against floors, on a private broker: `just bench`, `just bench hops delays`, `just bench --jobs 3000 throughput`.
bench *arguments:
    cargo bench --bench end_to_end -- {{ arguments }}

# How long the pieces of the hot path take.
bench-pieces:
    cargo bench --bench hot_path

# Draws the pictures of docs/dashboards.md from a run of six minutes; `just pictures draw` only draws anew.
pictures *draw:
    bash tests/pictures/make {{ draw }}

# Accepts changed snapshots as they are; look at `git diff` before you commit.
accept:
    INSTA_UPDATE=always INSTA_FORCE_PASS=1 cargo test --all-targets

# Looks for known weaknesses in dependencies (needs the network).
advisories:
    target/tools/bin/cargo-deny check advisories

# Builds the image as a release is built.
image:
    docker build --build-arg VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1) --build-arg REVISION=$(git rev-parse HEAD) --build-arg CREATED=$(git log -1 --format=%cI) --tag nbi-upgrade:local .
    docker run --rm nbi-upgrade:local --help

# The same without a container engine: builds the image with buildah, with stand-ins for the base images, and runs it.
image-here:
    bash tests/image

# Writes the bill of materials, CycloneDX as JSON.
sbom:
    bash tests/sbom

# Copies rules and dashboards into the Helm chart, which can read nothing outside it.
helm-files:
    rm -rf deploy/helm/nbi-upgrade/files
    mkdir -p deploy/helm/nbi-upgrade/files/dashboards
    cp deploy/prometheus/rules.yml deploy/helm/nbi-upgrade/files/
    cp deploy/grafana/*.json deploy/helm/nbi-upgrade/files/dashboards/
