use crate::FetchError;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The folder for downloads: `$RESIDUAL_CACHE`, else `$XDG_CACHE_HOME/residual`, else the one the system has for
/// caches, such as `~/.cache/residual`, `~/Library/Caches/residual` (macOS) or `%LOCALAPPDATA%\residual` (Windows).
/// It need not exist.
///
/// # Errors
/// If none of them is known.
pub fn cache_dir() -> Result<PathBuf, FetchError> {
    let system = if cfg!(windows) {
        env::var_os("LOCALAPPDATA").map(PathBuf::from)
    } else {
        env::home_dir().map(|home| home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" }))
    };
    choose(env::var_os, system).ok_or(FetchError::NoCache)
}

/// The server that `RESIDUAL_MIRROR` names, a URL under which published files have the same names, with a slash at its
/// end; none if it names none.
///
/// # Errors
/// If that is no URL.
pub fn mirror() -> Result<Option<String>, FetchError> {
    match env::var("RESIDUAL_MIRROR") {
        Ok(mirror) if !mirror.is_empty() => match mirror.starts_with("http://") || mirror.starts_with("https://") {
            true => Ok(Some(format!("{}/", mirror.trim_end_matches('/')))),
            false => Err(FetchError::Mirror(mirror)),
        },
        _ => Ok(None),
    }
}

fn choose(variable: impl Fn(&'static str) -> Option<OsString>, system: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(own) = variable("RESIDUAL_CACHE").filter(|folder| !folder.is_empty()) {
        return Some(own.into());
    }
    // The XDG specification has a relative path ignored.
    let xdg = variable("XDG_CACHE_HOME").filter(|folder| Path::new(folder).is_absolute()).map(PathBuf::from);
    xdg.or(system.filter(|folder| folder.is_absolute())).map(|folder| folder.join("residual"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_folder_wins() {
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
