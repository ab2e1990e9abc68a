"""The six families so shallow and thin that tests are quick, and fields end inside the image."""

WIDTHS = (8, 12, 16, 20)
SHALLOW = {
    "mobileone_s0": dict(widths=(0.1, 0.1, 0.05, 0.05), k=1),
    "fasternet_t0": dict(embed_dim=8, depths=(1, 1, 1, 1)),
    "replknet_31b": dict(kernels=(9, 7, 5, 3), channels=WIDTHS, depths=(1,) * 4, small_kernel=3),
    "mobilevig_ti": dict(channels=WIDTHS, local=(1, 1, 1, 0), graphs=(0, 0, 0, 1)),
    "mobilevigv2_ti": dict(channels=WIDTHS, local=(1, 0, 0, 0), graphs=(0, 1, 1, 1)),
    "rapidnet_ti": dict(channels=WIDTHS, local=(1, 1, 0, 0), dilated=(0, 0, 1, 1)),
}
