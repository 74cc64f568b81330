//! Paths and secrets.

use std::fmt;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::{Shape, refuse_type};
use crate::reader::{Context, RawTable, quote};
use crate::settings::SecretSource;
use crate::spec::Form;

/// A path, relative to the directory of the file.
pub(crate) struct FilePath {
    pub(crate) what: &'static str,
    /// Longest path the kernel takes for this purpose, in bytes.
    pub(crate) len_max: usize,
}

impl Shape for FilePath {
    type Value = PathBuf;

    fn form(&self) -> Form {
        Form::Text { what: self.what }
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<PathBuf> {
        let Some(text) = value.get_ref().as_str() else {
            refuse_type(value, path, &self.form(), context);
            return None;
        };
        let joined = context.base_dir.join(text);
        let (reason, help) = if text.is_empty() {
            (
                "which is no path".to_owned(),
                "name a file or directory".to_owned(),
            )
        } else if text.contains('\0') {
            (
                "which holds a zero byte".to_owned(),
                "name a file or directory".to_owned(),
            )
        } else if joined.as_os_str().len() > self.len_max {
            (
                format!(
                    "which makes a path of {} bytes, more than {}",
                    joined.as_os_str().len(),
                    self.len_max
                ),
                "choose a shorter path".to_owned(),
            )
        } else {
            return Some(joined);
        };
        context.refuse(
            path,
            &value.span(),
            format!("`{path}` is {}, {reason}", quote(text)),
            help,
        );
        None
    }
}

/// Where the lines of a sink go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SinkPath {
    Stdout,
    File(PathBuf),
}

impl fmt::Display for SinkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A path, or `-`.
pub(crate) struct SinkPathShape(pub(crate) FilePath);

impl Shape for SinkPathShape {
    type Value = SinkPath;

    fn form(&self) -> Form {
        Form::Text {
            what: "a path, relative to the directory of this file, or `-`",
        }
    }

    fn read(&self, value: &Spanned<DeValue<'_>>, path: &str, context: &mut Context<'_>) -> Option<SinkPath> {
        if value.get_ref().as_str() == Some("-") {
            return Some(SinkPath::Stdout);
        }
        self.0.read(value, path, context).map(SinkPath::File)
    }
}

/// A secret, named by where it is.
pub(crate) struct Secret;

impl Shape for Secret {
    type Value = SecretSource;

    fn form(&self) -> Form {
        Form::Secret(crate::raw::Secret::spec())
    }

    fn read(
        &self,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        context: &mut Context<'_>,
    ) -> Option<SecretSource> {
        if let Some(table) = value.get_ref().as_table() {
            let raw = crate::raw::Secret::read(table, &value.span(), path, context);
            let credential = raw.credential.value.map(SecretSource::Credential);
            let file = raw.file.value.map(SecretSource::File);
            return credential
                .or(file)
                .or_else(|| raw.env.value.map(SecretSource::Environment));
        }
        let place = context.place(&value.span());
        context.findings.hide(place);
        let name = path.rsplit('.').next().unwrap_or(path);
        let message = format!("`{path}` holds the secret itself, which must not stand in this file");
        let help = format!(
            "say where it is: {name} = {{ credential = \"fieldgate-{name}\" }} for a systemd credential, \
             {{ file = \"/etc/fieldgate/{name}\" }} or {{ env = \"FIELDGATE_{}\" }}; and change the secret, as it has been \
             written down",
            name.to_uppercase()
        );
        context.refuse(path, &value.span(), message, help);
        None
    }
}
