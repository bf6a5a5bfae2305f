/// Implements `Module` and `ModuleDisplay` for an enum of modules, without the variant's name in parameter paths: the
/// parameters of the variant's module appear as the enum's own. (`#[derive(Module)]` on an enum adds the variant's
/// name.)
macro_rules! transparent_enum {
    ($name:ident $(<$($generic:ident),+>)? { $($variant:ident),+ }) => {
        impl$(<$($generic: burn::module::Module + burn::module::ModuleDisplay),+>)?
            burn::module::Module for $name$(<$($generic),+>)?
        {
            fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
                match self { $(Self::$variant(m) => m.collect_devices(devices)),+ }
            }

            fn fork(self, device: &burn::tensor::Device) -> Self {
                match self { $(Self::$variant(m) => Self::$variant(m.fork(device))),+ }
            }

            fn to_device(self, device: &burn::tensor::Device) -> Self {
                match self { $(Self::$variant(m) => Self::$variant(m.to_device(device))),+ }
            }

            fn train(self) -> Self {
                match self { $(Self::$variant(m) => Self::$variant(m.train())),+ }
            }

            fn valid(&self) -> Self {
                match self { $(Self::$variant(m) => Self::$variant(m.valid())),+ }
            }

            fn materialize(self) -> Self {
                match self { $(Self::$variant(m) => Self::$variant(m.materialize())),+ }
            }

            fn visit<V: burn::module::ModuleVisitor>(&self, visitor: &mut V) {
                match self { $(Self::$variant(m) => m.visit(visitor)),+ }
            }

            fn map<M: burn::module::ModuleMapper>(self, mapper: &mut M) -> Self {
                match self { $(Self::$variant(m) => Self::$variant(m.map(mapper))),+ }
            }
        }

        impl$(<$($generic: burn::module::Module + burn::module::ModuleDisplay),+>)?
            burn::module::ModuleDisplayDefault for $name$(<$($generic),+>)?
        {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                match self { $(Self::$variant(m) => m.content(content)),+ }
            }

            fn num_params(&self) -> usize {
                burn::module::Module::num_params(self)
            }
        }

        impl$(<$($generic: burn::module::Module + burn::module::ModuleDisplay),+>)?
            burn::module::ModuleDisplay for $name$(<$($generic),+>)?
        {
            fn format(&self, settings: burn::module::DisplaySettings) -> alloc::string::String {
                match self { $(Self::$variant(m) => m.format(settings)),+ }
            }
        }

        impl$(<$($generic: burn::module::Module + burn::module::ModuleDisplay),+>)?
            core::fmt::Display for $name$(<$($generic),+>)?
        {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self { $(Self::$variant(m) => m.fmt(f)),+ }
            }
        }
    };
}

pub(crate) use transparent_enum;

/// Implements `Module` and `ModuleDisplay` for a struct of modules, without the first field's name in parameter paths:
/// the parameters of the first field appear as the struct's own. Other fields keep their names. (`#[derive(Module)]`
/// adds the names of all fields.)
macro_rules! transparent_struct {
    ($name:ident { $inner:ident } $(and { $($field:ident),+ })?) => {
        impl burn::module::Module for $name {
            fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
                let devices = self.$inner.collect_devices(devices);
                $($(let devices = self.$field.collect_devices(devices);)+)?
                devices
            }

            fn fork(self, device: &burn::tensor::Device) -> Self {
                Self { $inner: self.$inner.fork(device) $($(, $field: self.$field.fork(device))+)? }
            }

            fn to_device(self, device: &burn::tensor::Device) -> Self {
                Self { $inner: self.$inner.to_device(device) $($(, $field: self.$field.to_device(device))+)? }
            }

            fn train(self) -> Self {
                Self { $inner: self.$inner.train() $($(, $field: self.$field.train())+)? }
            }

            fn valid(&self) -> Self {
                Self { $inner: self.$inner.valid() $($(, $field: self.$field.valid())+)? }
            }

            fn materialize(self) -> Self {
                Self { $inner: self.$inner.materialize() $($(, $field: self.$field.materialize())+)? }
            }

            fn visit<V: burn::module::ModuleVisitor>(&self, visitor: &mut V) {
                self.$inner.visit(visitor);
                $($(
                    visitor.enter_module(stringify!($field), concat!("Struct:", stringify!($name)));
                    self.$field.visit(visitor);
                    visitor.exit_module(stringify!($field), concat!("Struct:", stringify!($name)));
                )+)?
            }

            fn map<M: burn::module::ModuleMapper>(self, mapper: &mut M) -> Self {
                let $inner = self.$inner.map(mapper);
                $($(
                    mapper.enter_module(stringify!($field), concat!("Struct:", stringify!($name)));
                    let $field = self.$field.map(mapper);
                    mapper.exit_module(stringify!($field), concat!("Struct:", stringify!($name)));
                )+)?
                Self { $inner $($(, $field)+)? }
            }
        }

        impl burn::module::ModuleDisplayDefault for $name {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                let content = self.$inner.content(content)?.set_top_level_type(stringify!($name));
                $($(let content = content.add(stringify!($field), &self.$field);)+)?
                content.optional()
            }

            fn num_params(&self) -> usize {
                burn::module::Module::num_params(self)
            }
        }

        impl burn::module::ModuleDisplay for $name {}

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&burn::module::ModuleDisplay::format(self, Default::default()))
            }
        }
    };
}

pub(crate) use transparent_struct;
