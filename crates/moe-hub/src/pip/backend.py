# Says what a distribution is called, and runs nothing of it.
import os


class Backend:
    def get_requires_for_build_wheel(self, settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, folder, settings=None):
        name = "FOLDER-VERSION.dist-info"
        os.mkdir(os.path.join(folder, name))
        with open(os.path.join(folder, name, "METADATA"), "w") as file:
            file.write("Metadata-Version: 2.1\nName: PACKAGE\nVersion: VERSION\n")
        return name


__legacy__ = Backend()
