use crate::Backend;
use burn::tensor::Device;
#[cfg(any(feature = "cuda", feature = "rocm", feature = "cpu", test))]
use std::{
    panic,
    sync::{Mutex, PoisonError},
};

/// An opened device and its description.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// The name by which [`Backend::device`] finds the device: `flex`, or `cuda:1` for the second GPU.
    pub id: String,
    /// The device, without autodiff.
    pub device: Device,
    /// The name that the device or its driver reports.
    pub name: String,
    /// Whether a GPU backend runs on a software adapter, which is slower than the CPU backends.
    pub software: bool,
}

/// Opens the devices of the backend, the best one first, without their ids. The error is the reason why there is none.
pub(crate) fn open(backend: Backend) -> Result<Vec<Hardware>, String> {
    match backend {
        #[cfg(feature = "flex")]
        Backend::Flex => Ok(vec![host(Device::flex())]),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        Backend::NdArray => Ok(vec![host(Device::ndarray())]),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => wgpu::open(wgpu::Api::Auto).map(|hardware| vec![hardware]),
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => wgpu::open(wgpu::Api::Vulkan).map(|hardware| vec![hardware]),
        #[cfg(feature = "metal")]
        Backend::Metal => wgpu::open(wgpu::Api::Metal).map(|hardware| vec![hardware]),
        #[cfg(feature = "cuda")]
        Backend::Cuda => cube::open(burn::tensor::DeviceType::Cuda),
        #[cfg(feature = "rocm")]
        Backend::Rocm => cube::open(burn::tensor::DeviceType::Rocm),
        #[cfg(feature = "cpu")]
        Backend::Cpu => cube::open(burn::tensor::DeviceType::Cpu).map(|all| all.into_iter().take(1).collect()),
        #[allow(unreachable_patterns)]
        _ => Err("not compiled in".into()),
    }
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
/// Describes a device of a CPU backend.
fn host(device: Device) -> Hardware {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let name = format!("{} CPU, {cores} cores", std::env::consts::ARCH);
    Hardware { id: String::new(), device, name, software: false }
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use super::Hardware;
    use burn::tensor::{
        Device,
        wgpu::{WgpuBackend, wgpu::DeviceType},
    };
    use std::sync::{Mutex, PoisonError};

    #[derive(Clone, Copy, PartialEq)]
    pub(super) enum Api {
        Auto,
        #[cfg(feature = "vulkan")]
        Vulkan,
        #[cfg(feature = "metal")]
        Metal,
    }

    type Opened = (Api, Result<Hardware, String>);

    /// The results of earlier calls. They are kept because Burn refuses to initialise a wgpu runtime twice.
    static OPENED: Mutex<Vec<Opened>> = Mutex::new(Vec::new());

    pub(super) fn open(api: Api) -> Result<Hardware, String> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, hardware)) = opened.iter().find(|(a, _)| *a == api) {
            return hardware.clone();
        }
        let hardware = init(api);
        opened.push((api, hardware.clone()));
        hardware
    }

    fn init(api: Api) -> Result<Hardware, String> {
        let api = match api {
            Api::Auto => WgpuBackend::Auto,
            #[cfg(feature = "vulkan")]
            Api::Vulkan => WgpuBackend::Vulkan,
            #[cfg(feature = "metal")]
            Api::Metal => WgpuBackend::Metal,
        };
        let (device, setup) =
            Device::wgpu_options().graphics_api(api).init_with_setup().map_err(|error| error.to_string())?;
        let info = setup.adapter.get_info();
        let software = info.device_type == DeviceType::Cpu;
        let name = format!("{}, {}", info.name, info.backend);
        Ok(Hardware { id: String::new(), device, name, software })
    }
}

/// Calls `f` and catches a panic, whose message is not printed.
#[cfg(any(feature = "cuda", feature = "rocm", feature = "cpu", test))]
fn quietly<R>(f: impl FnOnce() -> R + panic::UnwindSafe) -> std::thread::Result<R> {
    // The hook is global. Of two calls at once, the second would take the silent hook of the first for the program's, and
    // leave it in place.
    static HOOK: Mutex<()> = Mutex::new(());
    let held = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = panic::catch_unwind(f);
    panic::set_hook(hook);
    drop(held);
    result
}

#[cfg(any(feature = "cuda", feature = "rocm", feature = "cpu"))]
mod cube {
    use super::{Hardware, quietly};
    use burn::tensor::{Device, DeviceType};

    pub(super) fn open(device_type: DeviceType) -> Result<Vec<Hardware>, String> {
        let probe = || {
            let describe = |device: Device| {
                let name = device.identity().map_or_else(|| format!("{device:?}"), |identity| identity.name);
                Hardware { id: String::new(), device, name, software: false }
            };
            Device::enumerate(device_type).into_vec().into_iter().map(describe).collect::<Vec<_>>()
        };
        // These runtimes panic if the driver's library is missing.
        match quietly(probe) {
            Ok(devices) if devices.is_empty() => Err("no such GPU, or no driver for it".into()),
            Ok(devices) => Ok(devices),
            Err(_) => Err("its driver could not be loaded".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    /// The other tests of this crate do not panic, so the hook counts the panics of this test alone.
    #[test]
    fn probes_at_once_leave_the_programs_panic_hook_in_place() {
        let printed = Arc::new(AtomicUsize::new(0));
        let count = printed.clone();
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |_| _ = count.fetch_add(1, Ordering::SeqCst)));
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..100 {
                        assert!(quietly(|| panic!("no driver")).is_err());
                    }
                });
            }
        });
        assert_eq!((quietly(|| 7).ok(), printed.load(Ordering::SeqCst)), (Some(7), 0));
        let _ = panic::catch_unwind(|| panic!("heard"));
        panic::set_hook(before);
        assert_eq!(printed.load(Ordering::SeqCst), 1);
    }
}
