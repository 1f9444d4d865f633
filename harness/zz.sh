cd /src; export CARGO_TARGET_DIR=/cache/build/model2
rustfmt --check --edition 2021 --config-path /cache/tree/.rustfmt.toml tools/testing/task_mmu/src/main.rs
time tools/testing/task_mmu/run.sh
