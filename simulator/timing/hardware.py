"""GPUs as NVIDIA's datasheets describe them: what a roofline needs and nothing that was measured.

Every figure is the datasheet's own, so that a reader can look it up; how much of it real kernels reach is in
`simulator.timing.corrections`. Datasheets print tensor-core rates "with sparsity": the dense rate is half.
"""

from dataclasses import dataclass

from heliostat.errors import HeliostatError
from heliostat.findings import did_you_mean


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Rates are dense and one-directional, with decimal prefixes; memory is binary.

    `memory_gib` is the datasheet's "GB", which for HBM are GiB but for about 1 % that the driver keeps.
    """

    name: str
    memory_gib: float
    memory_gb_per_s: float
    tflops_16: float
    """BF16 and FP16 tensor cores."""
    tflops_8: float
    """FP8, or INT8 where the chip has no FP8."""
    tflops_4: float | None
    """FP4; None where the chip has none."""
    nvlink_gb_per_s: float
    nic_gb_per_s: float
    """The share of the node's RDMA network cards that belongs to one GPU."""

    def tflops(self, bits: int) -> float:
        """The dense rate of matrix products whose operands both have so many bits.

        32 means TF32, which every one of these datasheets puts at half of BF16. Raises HeliostatError for
        a width that the chip does not have.
        """
        rate = {32: self.tflops_16 / 2, 16: self.tflops_16, 8: self.tflops_8, 4: self.tflops_4}.get(bits)
        if rate is None:
            raise HeliostatError(
                f"{self.name} has no tensor cores for {bits} bit operands; weights of {bits} bits are "
                "computed in 16 bits there (leave `compute_bits` at 16)"
            )
        return rate


# "NVIDIA A100 Tensor Core GPU" datasheet, column A100 80GB SXM: 80 GB HBM2e, 2,039 GB/s, BF16 312 TFLOPS
# and INT8 624 TOPS dense (with sparsity 624 and 1,248), NVLink 600 GB/s both ways. Network: "NVIDIA DGX A100"
# datasheet, eight 200 Gb/s ConnectX-6 for eight GPUs.
A100 = Gpu("A100", 80, 2039, 312, 624, None, 300, 25)

# "NVIDIA H100 Tensor Core GPU" datasheet, column H100 SXM: 80 GB HBM3, 3.35 TB/s, with sparsity BF16
# 1,979 and FP8 3,958 TFLOPS, NVLink 900 GB/s both ways. Network: "NVIDIA DGX H100" datasheet, eight
# 400 Gb/s ConnectX-7 for eight GPUs.
H100 = Gpu("H100", 80, 3350, 989.5, 1979, None, 450, 50)

# "NVIDIA H200 Tensor Core GPU" datasheet, column H200 SXM: 141 GB HBM3e, 4.8 TB/s; rates and NVLink as
# the H100's. Network: "NVIDIA DGX H200" datasheet, as the DGX H100's.
H200 = Gpu("H200", 141, 4800, 989.5, 1979, None, 450, 50)

# "NVIDIA DGX B200" datasheet, an eighth of the system: 1,440 GB HBM3e, 64 TB/s, FP4 72 PFLOPS dense, FP8
# 72 PFLOPS with sparsity, NVLink 14.4 TB/s both ways, 400 Gb/s ConnectX-7 per GPU. BF16 is half of FP8
# ("NVIDIA Blackwell Architecture Technical Brief", HGX B200: 4.5 PFLOPS with sparsity).
B200 = Gpu("B200", 180, 8000, 2250, 4500, 9000, 900, 50)

GPUS: dict[str, Gpu] = {gpu.name.lower(): gpu for gpu in (A100, H100, H200, B200)}


def gpu_named(name: str) -> Gpu:
    """The datasheet of a GPU, whatever the case of its name. Raises HeliostatError that lists those known."""
    gpu = GPUS.get(name.lower())
    if gpu is None:
        raise HeliostatError(f"no datasheet of a GPU `{name}`; {did_you_mean(name.lower(), GPUS, 'GPUs')}")
    return gpu
