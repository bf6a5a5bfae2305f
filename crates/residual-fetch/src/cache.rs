use crate::FetchError;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The directory for downloads: `$RESIDUAL_CACHE` if it is set, otherwise `$XDG_CACHE_HOME/residual`, otherwise
/// `residual` in the system's cache directory: `~/.cache/residual`, `~/Library/Caches/residual` (macOS) or
/// `%LOCALAPPDATA%\residual` (Windows). The directory need not exist.
///
/// # Errors
/// If none of these can be determined.
pub fn cache_dir() -> Result<PathBuf, FetchError> {
    let system = if cfg!(windows) {
        env::var_os("LOCALAPPDATA").map(PathBuf::from)
    } else {
        env::home_dir().map(|home| home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" }))
    };
    choose(env::var_os, system).ok_or(FetchError::NoCacheDir)
}

/// The URL in the environment variable `RESIDUAL_MIRROR`, with a trailing slash, or `None` if the variable is unset or
/// empty. The mirror at this URL must have the published files under their original names.
///
/// # Errors
/// If the value does not begin with `http://` or `https://`.
pub fn mirror() -> Result<Option<String>, FetchError> {
    match env::var("RESIDUAL_MIRROR") {
        Ok(mirror) if mirror.is_empty() => Ok(None),
        Ok(mirror) if mirror.starts_with("http://") || mirror.starts_with("https://") => {
            Ok(Some(format!("{}/", mirror.trim_end_matches('/'))))
        }
        Ok(mirror) => Err(FetchError::InvalidMirror(mirror)),
        Err(_) => Ok(None),
    }
}

/// Chooses the cache directory from the environment variables and the system's cache directory.
fn choose(variable: impl Fn(&'static str) -> Option<OsString>, system: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(own) = variable("RESIDUAL_CACHE").filter(|folder| !folder.is_empty()) {
        return Some(own.into());
    }
    // The XDG specification requires relative paths to be ignored.
    let xdg = variable("XDG_CACHE_HOME").filter(|folder| Path::new(folder).is_absolute()).map(PathBuf::from);
    xdg.or(system.filter(|folder| folder.is_absolute())).map(|folder| folder.join("residual"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_override_the_system_directory() {
        let root = env::temp_dir();
        let system = || Some(root.join("system"));
        let xdg = root.join("xdg");
        let set = |own: &'static str, xdg: &Path| {
            let xdg = xdg.as_os_str().to_owned();
            move |name| Some(if name == "RESIDUAL_CACHE" { own.into() } else { xdg.clone() })
        };
        assert_eq!(choose(set("own", &xdg), system()), Some("own".into()));
        assert_eq!(choose(set("", &xdg), system()), Some(xdg.join("residual")));
        assert_eq!(choose(set("", Path::new("relative")), system()), Some(root.join("system").join("residual")));
        assert_eq!(choose(|_| None, system()), Some(root.join("system").join("residual")));
        assert_eq!(choose(|_| None, None), None);
    }
}
