use crate::FetchError;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The folder for downloads: `$RESIDUAL_CACHE` if set, else `$XDG_CACHE_HOME/residual`, else `residual` in the system's
/// cache folder: `~/.cache/residual`, `~/Library/Caches/residual` (macOS) or `%LOCALAPPDATA%\residual` (Windows). The
/// folder need not exist.
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

/// The mirror given by the environment variable `RESIDUAL_MIRROR`: a URL under which the published files have their
/// original names. Returns it with a trailing slash, or `None` if the variable is unset or empty.
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

/// Picks the cache folder from the environment variables and the system's cache folder.
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
    fn environment_variables_override_the_system_folder() {
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
