// By default the id of the entry module is a hash of its absolute path. Numbered in order of use, the modules are the
// same wherever the repository lies, so that a build can be compared byte by byte.
module.exports = { optimization: { moduleIds: 'natural' } };
