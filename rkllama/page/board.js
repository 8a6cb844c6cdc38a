export const boardView = {
  mount() {},
};
