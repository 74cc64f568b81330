//! One TOML file into checked settings.
