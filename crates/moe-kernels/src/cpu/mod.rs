//! Kernels on plain slices. Work is cut into the same pieces whatever the number of threads, so that
//! results are the same bit for bit.

mod awake;
pub(crate) mod exp;
pub(crate) mod level;
pub(crate) mod outer_products;
pub(crate) mod panel_product;
pub(crate) mod pieces;
pub(crate) mod product;
pub(crate) mod queue;
pub(crate) mod simd;
pub(crate) mod stack;
pub(crate) mod tile;
pub(crate) mod weight;

/// Compiles the body for AVX-512, for AVX2 and for any processor, and calls what this one can run.
///
/// The body is a loop over slices that the compiler turns into vector instructions by itself.
macro_rules! vectorised {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name($($argument: $type),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn wide($($argument: $type),*) {
                    body($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn narrow($($argument: $type),*) {
                    body($($argument),*)
                }
                match $crate::cpu::level::Level::of_this_process() {
                    // SAFETY: the level says that the processor has these instructions.
                    $crate::cpu::level::Level::Avx512 => return unsafe { wide($($argument),*) },
                    // SAFETY: as above.
                    $crate::cpu::level::Level::Avx2 => return unsafe { narrow($($argument),*) },
                    $crate::cpu::level::Level::Portable => {}
                }
            }
            body($($argument),*)
        }
    };
}
pub(crate) use vectorised;
