//! Kernels on plain slices. Work is cut into the same pieces whatever the number of threads, so that
//! results are the same bit for bit.

#[cfg(feature = "flex")]
mod awake;
#[cfg(feature = "flex")]
pub(crate) mod exp;
pub(crate) mod level;
#[cfg(feature = "flex")]
pub(crate) mod outer_products;
#[cfg(feature = "flex")]
pub(crate) mod panel_product;
#[cfg(feature = "flex")]
pub(crate) mod pieces;
#[cfg(feature = "flex")]
pub(crate) mod product;
#[cfg(feature = "flex")]
pub(crate) mod queue;
pub(crate) mod simd;
#[cfg(feature = "flex")]
pub(crate) mod stack;
#[cfg(feature = "flex")]
pub(crate) mod tile;
#[cfg(feature = "flex")]
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

/// Compiles a loop for AVX-512, for AVX2 and for any processor, and calls what this one can run; the loop is generic in a type and in
/// the vectors.
macro_rules! levels {
    ($name:ident<$generic:ident: $bound:path>, $body:ident, ($($argument:ident: $type:ty),* $(,)?)) => {
        fn $name<$generic: $bound>($($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::cpu::level::Level;

                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn wide<$generic: $bound>($($argument: $type),*) {
                    $body::<$generic, $crate::cpu::simd::Avx512>($($argument),*);
                }
                #[target_feature(enable = "avx2,fma")]
                fn narrow<$generic: $bound>($($argument: $type),*) {
                    $body::<$generic, $crate::cpu::simd::Avx2>($($argument),*);
                }
                match Level::of_this_process() {
                    // SAFETY: the level says that the processor has these instructions.
                    Level::Avx512 => return unsafe { wide::<$generic>($($argument),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { narrow::<$generic>($($argument),*) },
                    Level::Portable => {}
                }
            }
            $body::<$generic, $crate::cpu::simd::Portable>($($argument),*);
        }
    };
}
pub(crate) use levels;
