/* MKL asks this of itself before it picks its kernels, and takes slow ones on processors of other makers.
   Preloaded, the answer is yes. */
int mkl_serv_intel_cpu_true(void) { return 1; }
